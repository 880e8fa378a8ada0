use clap::{CommandFactory, Parser};

use super::{Cli, Format, Verb};

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
    assert_eq!((args.hardware.memory.0, args.env.len()), (256 << 20, 2));
}
