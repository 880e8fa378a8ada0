use clap::{CommandFactory, Parser};
use riad_vmm::{EngineKind, VmConfig};

use super::{Cli, Format, ImageVerb, Verb};

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn everything_after_the_dashes_is_the_commands() {
    let cli =
        Cli::try_parse_from("riad run --cpus 4 debian --timings=json -- ls --cpus 9 -l".split(' '))
            .unwrap();
    let Verb::Run(args) = cli.verb else { panic!("another verb") };
    assert_eq!(args.command, ["ls", "--cpus", "9", "-l"]);
    assert_eq!(args.hardware.cpus, Some(4));
    assert_eq!(args.timings, Some(Some(Format::Json)));
}

#[test]
fn timings_need_no_format() {
    let cli = Cli::try_parse_from("riad run --timings debian".split(' ')).unwrap();
    let Verb::Run(args) = cli.verb else { panic!("another verb") };
    assert_eq!((args.timings, args.image.to_string()), (Some(None), "debian".to_owned()));
}

#[test]
fn of_an_option_that_is_there_twice_the_last_counts() {
    let line = "riad run --memory 1G --env A=1 --memory 256M --env B=2 debian";
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let Verb::Run(args) = cli.verb else { panic!("another verb") };
    assert_eq!((args.hardware.memory.0, args.conditions.env.len()), (256 << 20, 2));
}

#[test]
fn engines_are_named_with_their_tier() {
    for (line, engine) in [
        ("riad run debian", EngineKind::Auto),
        ("riad run --engine soft debian", EngineKind::Soft),
        ("riad run --engine soft:interp debian", EngineKind::SoftInterpreter),
        ("riad run --engine soft:lockstep debian", EngineKind::SoftLockstep),
    ] {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Verb::Run(args) = cli.verb else { panic!("another verb") };
        assert_eq!(args.hardware.engine, engine, "{line}");
    }
    let line = "riad image build debian --engine soft:interp";
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let Verb::Image(ImageVerb::Build(args)) = cli.verb else { panic!("another verb") };
    assert_eq!(args.engine, EngineKind::SoftInterpreter);
}

#[test]
fn the_code_cache_has_a_range_and_a_usual_size() {
    let size = |words: &str| {
        let line = format!("riad boot --kernel k {words}");
        let cli = Cli::try_parse_from(line.trim().split(' '))?;
        let Verb::Boot(args) = cli.verb else { panic!("another verb") };
        Ok::<_, clap::Error>(args.hardware.code_cache.0)
    };
    assert_eq!(size("").unwrap(), VmConfig::DEFAULT_CODE_CACHE);
    assert_eq!(size("--code-cache 1M").unwrap(), 1 << 20);
    assert_eq!(size("--code-cache 1GiB").unwrap(), 1 << 30);
    for wrong in ["1023K", "1025M", "0", "much"] {
        assert!(size(&format!("--code-cache {wrong}")).is_err(), "{wrong}");
    }
}
