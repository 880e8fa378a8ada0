use super::*;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
bad line
ann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh
1001:x:7:7::/seven:
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "\
root:x:0:
sudo:x:27:ann,bob
ann:x:1000:
video:x:44:bob,ann
users:x:100:joann
";

#[test]
fn a_name_gives_its_account() {
    let ann = resolve("ann", PASSWD, GROUP).unwrap();
    assert_eq!(
        ann,
        Account {
            uid: 1000,
            gid: 1000,
            groups: vec![1000, 27, 44],
            name: Some("ann".into()),
            home: "/home/ann".into(),
            shell: "/bin/zsh".into(),
        }
    );
    assert_eq!(resolve("1000", PASSWD, GROUP).unwrap(), ann);
}

#[test]
fn a_name_made_of_digits_goes_before_the_number() {
    let seven = resolve("1001", PASSWD, GROUP).unwrap();
    assert_eq!((seven.uid, seven.home.as_str(), seven.shell.as_str()), (7, "/seven", "/bin/sh"));
}

#[test]
fn an_unknown_number_is_a_user_without_a_name() {
    let account = resolve("4242:44", PASSWD, GROUP).unwrap();
    assert_eq!((account.uid, account.gid, account.groups), (4242, 44, vec![44]));
    assert_eq!((account.name, account.home.as_str()), (None, "/"));
    assert_eq!(resolve("ann:video", PASSWD, GROUP).unwrap().groups, [44]);
}

#[test]
fn what_is_not_there_is_named() {
    assert_eq!(resolve("eve", PASSWD, GROUP), Err(UserError::NoUser("eve".into())));
    assert_eq!(resolve("ann:evil", PASSWD, GROUP), Err(UserError::NoGroup("evil".into())));
    assert_eq!(resolve("", PASSWD, GROUP), Err(UserError::NoUser("".into())));
    assert_eq!(resolve("-1", PASSWD, GROUP), Err(UserError::NoUser("-1".into())));
    assert_eq!(resolve("root", "", "").unwrap().home, "/root");
}
