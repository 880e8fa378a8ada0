//! Commands: what they are given, and what comes back.

use crate::harness::{end_to_end, run, shell, text};

#[test]
fn it_is_a_real_debian_with_its_own_kernel() {
    end_to_end!();
    let words = shell(&[], "cat /etc/os-release; uname -srm");
    assert!(
        words.contains("ID=debian\n") && words.contains("VERSION_CODENAME=bookworm"),
        "{words}"
    );
    let kernel = words.lines().last().unwrap();
    assert!(kernel.starts_with("Linux 6.") && kernel.ends_with("-cloud-amd64 x86_64"), "{words}");
}

#[test]
fn the_exit_status_is_the_commands() {
    end_to_end!();
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255)] {
        assert_eq!(run(&[], &["sh", "-c", script]).status.code(), Some(status), "{script}");
    }
}

#[test]
fn death_by_signal_n_is_128_and_n() {
    end_to_end!();
    for (script, status) in [("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(run(&[], &["sh", "-c", script]).status.code(), Some(status), "{script}");
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_be_run_126() {
    end_to_end!();
    for (command, status, words) in
        [("no-such-command", 127, "no-such-command"), ("/etc/passwd", 126, "cannot be executed")]
    {
        let output = run(&[], &[command]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.starts_with("riad: ") && stderr.contains(words), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_user_that_is_not_there_is_riads_failure() {
    end_to_end!();
    let output = run(&["--user", "nosuchuser"], &["id"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("nosuchuser"), "{}", text(&output.stderr));
}

#[test]
fn environment_directory_and_user_are_as_asked() {
    end_to_end!();
    let options = ["--user", "nobody", "--workdir", "/var/tmp", "--env", "ROOM=blue tiles"];
    let words = shell(&options, r#"id -un; pwd; echo "$ROOM""#);
    assert_eq!(words, "nobody\n/var/tmp\nblue tiles\n");
}

#[test]
fn without_asking_it_is_root_in_a_login_environment() {
    end_to_end!();
    let words = shell(&[], r#"id -u; pwd; echo "$HOME $USER ${PATH%%:*}""#);
    assert_eq!(words, "0\n/root\n/root root /usr/local/sbin\n");
}

#[test]
fn one_and_four_processors() {
    end_to_end!();
    for cpus in ["1", "4"] {
        assert_eq!(shell(&["--cpus", cpus], "nproc").trim(), cpus);
    }
    // All four at work.
    let script = "for i in 1 2 3 4; do (seq 100000 | md5sum) & done; wait";
    let sums = shell(&["--cpus", "4"], script);
    assert_eq!(sums.lines().count(), 4, "{sums}");
    assert!(sums.lines().all(|line| line == sums.lines().next().unwrap()), "{sums}");
}

#[test]
fn memory_is_as_asked() {
    end_to_end!();
    let output = run(&["--memory", "256M"], &["grep", "MemTotal", "/proc/meminfo"]);
    let words = text(&output.stdout);
    let kib: u64 = words.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((180 << 10..256 << 10).contains(&kib), "{words}");
}

#[test]
fn apt_get_runs() {
    end_to_end!();
    let words = shell(&[], "apt-get --version");
    assert!(words.starts_with("apt 2."), "{words}");
}

#[test]
fn python_computes() {
    end_to_end!();
    let script = "python3 -c 'import math; print(sum(range(100000)), math.sqrt(2), 2**200)'";
    assert_eq!(
        shell(&[], script),
        "4999950000 1.4142135623730951 \
         1606938044258990275541962092341162602522202993782792835301376\n"
    );
}

#[test]
fn a_c_program_is_compiled_and_runs() {
    end_to_end!();
    let script = r#"
        cd /tmp
        cat >first.c <<'END'
        #include <stdio.h>
        #include <math.h>
        int main(int argc, char **argv) {
            double sum = 0;
            for (int n = 1; n <= 1000000; n++) sum += 1.0 / ((double)n * n);
            printf("%.6f\n", sqrt(6 * sum));
            return 42;
        }
END
        gcc -O2 -o first first.c -lm
        set +e
        ./first
        echo "status $?"
    "#;
    assert_eq!(shell(&[], script), "3.141592\nstatus 42\n");
}

#[test]
fn the_machine_has_devices_a_clock_and_randomness() {
    end_to_end!();
    let script =
        "test -b /dev/vda && test -c /dev/null && head -c 16 /dev/urandom | wc -c && date +%s";
    let words = shell(&[], script);
    let (bytes, seconds) = words.trim().split_once('\n').unwrap();
    let here = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert_eq!(bytes, "16");
    assert!(seconds.parse::<u64>().unwrap().abs_diff(here) < 60, "{seconds} is not {here}");
}
