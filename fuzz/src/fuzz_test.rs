use crate::cases::Cases;
use crate::targets::{TARGETS, find};

#[test]
fn every_seed_of_every_target_is_read() {
    for target in TARGETS {
        (target.run)(&[]);
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let depth = (target.run)(seed);
            println!("{} seed {number}: {depth}", target.name);
        }
    }
}

#[test]
fn names_are_told_apart() {
    for target in TARGETS {
        let found = find(target.name).map(std::ptr::from_ref);
        assert_eq!(found, Some(std::ptr::from_ref(target)), "{}", target.name);
    }
    assert!(find("nothing").is_none());
}

#[test]
fn a_number_is_always_the_same_case() {
    for target in TARGETS {
        let (one, two) = (Cases::new(target, 5), Cases::new(target, 5));
        let other = Cases::new(target, 6);
        assert!((0..200).all(|number| one.case(number) == two.case(number)), "{}", target.name);
        assert!((0..200).any(|number| one.case(number) != other.case(number)), "{}", target.name);
    }
}

/// Seeds are worth nothing if they are refused at the door.
#[test]
fn seeds_are_valid() {
    use riad_machine::boot::KernelImage;
    for kernel in crate::seeds::kernels::all() {
        KernelImage::parse(&kernel).expect("a kernel");
    }
    let module = crate::seeds::kernels::module();
    let depends = riad_image::kernel::module_info(&module, "depends").expect("a module");
    assert_eq!(depends, ["a,b"]);
}

/// A generator whose cases are refused finds nothing.
#[test]
fn most_cases_get_somewhere() {
    let mut refused = Vec::new();
    for target in TARGETS {
        let depths = crate::runner::depths(target, 1, 300);
        let deep = depths.iter().filter(|depth| **depth > 0).count();
        let most = depths.iter().max().copied().unwrap_or(0);
        println!("{:14} {deep:3} of 300, up to {most}", target.name);
        if deep < 15 {
            refused.push(target.name);
        }
    }
    assert!(refused.is_empty(), "nearly all cases are refused: {refused:?}");
}
