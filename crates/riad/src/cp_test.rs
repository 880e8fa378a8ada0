use super::*;

fn of(word: &str) -> End {
    end(OsStr::new(word)).unwrap()
}

#[test]
fn arguments_are_here_or_there() {
    let there = |name: &str, path: &str| End::There(name.parse().unwrap(), path.into());
    let here = |path: &str| End::Here(path.into());
    assert_eq!(of("-"), End::Stream);
    assert_eq!(of("dev:/etc/motd"), there("dev", "/etc/motd"));
    assert_eq!(of("dev:a:b"), there("dev", "a:b"));
    assert_eq!(of("dev:"), there("dev", "."));
    for path in ["dev", "./dev:a", "/a:b", "a/b:c", "."] {
        assert_eq!(of(path), here(path));
    }
    assert!(end(OsStr::new("C:/windows")).is_err());
}
