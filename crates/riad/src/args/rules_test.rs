use clap::Parser;

use crate::args::{Cli, Verb};

/// The network of `riad create dev` with these words behind it.
fn network(words: &[&str]) -> Result<String, String> {
    let line = ["riad", "create", "dev"].iter().chain(words);
    let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
    let Verb::Create(args) = cli.verb else { panic!("another verb") };
    match args.networking.network() {
        Ok((network, _)) => Ok(network.to_string()),
        Err(crate::report::Failure::Own(sentence)) => Err(sentence),
        Err(other) => Err(format!("{other:?}")),
    }
}

#[test]
fn rules_keep_the_order_that_they_were_given_in() {
    let words = [
        "--deny=tcp any:25",
        "--allow",
        "tcp example.com:443",
        "--net=user,host=8080,allow=icmp any",
        "--deny",
        "10.0.0.0/8",
        "--allow=*.example.com",
        "--net-default=deny",
    ];
    let expected = "user,host=8080,default=deny,allow=icmp any,deny=tcp any:25,allow=tcp \
                    example.com:443,deny=10.0.0.0/8,allow=*.example.com";
    assert_eq!(network(&words).unwrap(), expected);
    assert_eq!(network(&[]).unwrap(), "user");
    assert_eq!(network(&["--net=none"]).unwrap(), "none");
}

#[test]
fn what_is_no_rule_is_told_what_one_is() {
    for (words, said) in [
        (&["--allow=10.0.0.0/99"][..], "a prefix (10.0.0.0/8)"),
        (&["--deny=deny any"], "tcp, udp or icmp"),
        (&["--deny="], "it does not say who"),
        (&["--net-default=perhaps"], "neither allow nor deny"),
        (&["--net=none", "--deny=any"], "'none'"),
        (&["--net=tap=tap0", "--net-default=deny"], "firewall"),
    ] {
        let error = network(words).unwrap_err();
        assert!(error.contains(said), "{words:?}: {error}");
    }
}
