use super::*;

fn all(text: &str) -> Vec<Paragraph<'_>> {
    Paragraphs::new(text).collect::<Result<_, _>>().expect("well formed")
}

#[test]
fn paragraphs_are_split_by_any_number_of_empty_lines() {
    let text = "\n\nA: 1\nB: 2\n\n \n\nA: 3\n\n";
    let got = all(text);
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].get("a"), Some("1"));
    assert_eq!(got[0].get("b"), Some("2"));
    assert_eq!(got[0].text(), "A: 1\nB: 2");
    assert_eq!(got[1].text(), "A: 3");
}

#[test]
fn continuation_lines_belong_to_the_field_and_comments_to_none() {
    let text = "Types: deb\n# not here: at all\nURIs: a\n b\n# c\n d\nSuites:\n x y\n";
    let got = all(text);
    assert_eq!(got[0].get("Types"), Some("deb\n# not here: at all"));
    assert_eq!(got[0].words("Types").collect::<Vec<_>>(), ["deb"]);
    assert_eq!(got[0].words("URIs").collect::<Vec<_>>(), ["a", "b", "d"]);
    assert_eq!(got[0].words("Suites").collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn a_last_line_without_a_line_feed_counts() {
    assert_eq!(all("A: x\n y")[0].get("A"), Some("x\n y"));
    assert!(all("").is_empty());
    assert!(all("# only a comment\n").is_empty());
}

#[test]
fn malformed_lines_are_named() {
    let errors: Vec<_> = ["oops\n", " lead\n", ": v\n", "a b: v\n"]
        .iter()
        .map(|t| Paragraphs::new(t).next().expect("some").expect_err("malformed").line)
        .collect();
    assert_eq!(errors, [1, 1, 1, 1]);
    // The iterator ends after an error rather than going round in circles.
    assert_eq!(Paragraphs::new("A: 1\nbad\nB: 2\n").count(), 1);
}
