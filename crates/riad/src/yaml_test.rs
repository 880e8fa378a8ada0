use serde_json::json;

use super::*;

#[test]
fn values_are_written_as_yaml_reads_them() {
    let value = json!({
        "name": "dev", "cpus": 2, "state": "running", "answer": "no", "empty": [], "none": null,
        "sentence": "two words: yes", "number": "12",
        "stages": [{"stage": "kernel", "ms": 1.5}, {"stage": "agent", "ms": 2}],
        "lines": ["a", "- b"], "nested": {"deep": {"true": true}, "lists": [["x"], []]}
    });
    assert_eq!(
        text(&value),
        "answer: \"no\"\ncpus: 2\nempty: []\nlines:\n  - a\n  - \"- b\"\nname: dev\nnested:\n  deep:\n    \
         \"true\": true\n  lists:\n    - - x\n    - []\nnone: null\nnumber: \"12\"\nsentence: \"two words: \
         yes\"\nstages:\n  - ms: 1.5\n    stage: kernel\n  - ms: 2\n    stage: agent\nstate: running\n"
    );
    assert_eq!(text(&json!([])), "[]\n");
    assert_eq!(text(&json!("on")), "\"on\"\n");
}
