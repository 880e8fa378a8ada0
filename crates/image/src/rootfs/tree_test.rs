use proptest::prelude::*;

use super::*;

fn file(text: &str) -> Kind {
    Kind::File(Content::Bytes(text.as_bytes().to_vec()))
}

fn dir() -> Kind {
    Kind::Directory(BTreeMap::new())
}

fn link(target: &str) -> Kind {
    Kind::Symlink(target.to_owned())
}

const A: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: 1 };

fn text(tree: &Tree, path: &str) -> Option<String> {
    match &tree.get(path)?.kind {
        Kind::File(Content::Bytes(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

#[test]
fn merged_usr_redirects_files_and_keeps_its_links() {
    let mut tree = Tree::new(0);
    tree.put("usr/bin", A, dir()).expect("put");
    tree.put("bin", A, link("usr/bin")).expect("put");
    tree.put("./bin/", A, dir()).expect("put");
    tree.put("./bin/sh", A, file("shell")).expect("put");
    assert_eq!(text(&tree, "/usr/bin/sh").as_deref(), Some("shell"));
    assert_eq!(text(&tree, "/bin/sh").as_deref(), Some("shell"));
    assert!(matches!(tree.get_link("bin").expect("there").kind, Kind::Symlink(_)));
}

#[test]
fn a_link_cannot_lead_out_of_the_tree() {
    let mut tree = Tree::new(0);
    tree.put("a", A, link("../../../../etc")).expect("put");
    tree.put("a/passwd", A, file("x")).expect("put");
    assert_eq!(text(&tree, "etc/passwd").as_deref(), Some("x"));
    for path in ["../x", "a/../../x", "a\0b", &"n".repeat(300), &"n/".repeat(3000)] {
        assert!(tree.put(path, A, file("x")).is_err(), "{path}");
    }
}

#[test]
fn circles_are_refused() {
    let mut tree = Tree::new(0);
    tree.put("a", A, link("b")).expect("put");
    tree.put("b", A, link("a")).expect("put");
    assert!(tree.put("a/x", A, file("x")).is_err());
    assert!(tree.get("a").is_none());
    tree.put("c", A, link("c/c/c/c")).expect("put");
    assert!(tree.put("c/x", A, file("x")).is_err());
}

#[test]
fn files_replace_files_but_not_directories() {
    let mut tree = Tree::new(0);
    tree.put("d/x", A, file("1")).expect("put");
    tree.put("d/x", A, file("2")).expect("put");
    assert_eq!(text(&tree, "d/x").as_deref(), Some("2"));
    assert!(tree.put("d", A, file("x")).is_err());
    assert!(tree.put("d/x/y", A, file("x")).is_err());
    tree.put("d", A, link("elsewhere")).expect("the directory stays");
    assert_eq!(text(&tree, "d/x").as_deref(), Some("2"));
}

#[test]
fn hard_links_share_a_node() {
    let mut tree = Tree::new(0);
    tree.put("a", A, file("x")).expect("put");
    tree.link("d/b", "./a").expect("linked");
    assert_eq!(text(&tree, "d/b").as_deref(), Some("x"));
    tree.put("a", A, file("y")).expect("put");
    assert_eq!(text(&tree, "d/b").as_deref(), Some("x"));
    assert!(tree.link("c", "missing").is_err());
    assert!(tree.link("c", "d").is_err());
}

#[test]
fn everything_below_a_directory_is_listed_in_order() {
    let mut tree = Tree::new(0);
    for path in ["m/b/2", "m/a", "m/b/1", "n"] {
        tree.put(path, A, file("")).expect("put");
    }
    let paths: Vec<String> = tree.below("m").into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["m/a", "m/b", "m/b/1", "m/b/2"]);
    assert_eq!(tree.below("").len(), 6);
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_tree_sound(
        steps in proptest::collection::vec(("[ab./]{0,8}", 0u8..4, "[ab./]{0,6}"), 0..40)
    ) {
        let mut tree = Tree::new(0);
        for (path, what, target) in steps {
            let _ = match what {
                0 => tree.put(&path, A, dir()),
                1 => tree.put(&path, A, file("x")),
                2 => tree.put(&path, A, link(&target)),
                _ => tree.link(&path, &target),
            };
        }
        for (path, _) in tree.below("") {
            prop_assert!(tree.get_link(&path).is_some());
        }
    }
}
