use super::*;

fn script(name: &str) -> NewScript {
    NewScript { name: name.to_owned(), text: b"true\n".to_vec() }
}

#[test]
fn scripts_are_kept_under_plain_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let names = add(
        dir.path(),
        &[script("a.sh"), script("a.sh"), script("../x y"), script("-"), script(".hidden")],
    )
    .unwrap();
    assert_eq!(names, ["a.sh", "a.sh-2", "_x_y", "script", "hidden"]);
    assert!(names.iter().all(|name| is_script_name(name)));
    for bad in ["", "..", "../a.sh", "a/b", "a b", ".a", &"a".repeat(200)] {
        assert!(!is_script_name(bad), "{bad}");
    }
    // One that is there already is replaced.
    let other = NewScript { text: b"false\n".to_vec(), ..script("a.sh") };
    assert_eq!(add(dir.path(), &[other]).unwrap(), ["a.sh"]);
    assert_eq!(fs::read(dir.path().join(SCRIPTS).join("a.sh")).unwrap(), b"false\n");
    assert_eq!(fs::read_dir(dir.path().join(SCRIPTS)).unwrap().count(), 5);
    let long = NewScript { name: "long".to_owned(), text: vec![0; MOST_SCRIPT + 1] };
    assert!(add(dir.path(), &[long]).unwrap_err().to_string().contains("'long'"));
    let many = vec![script("b"); MOST_SCRIPTS];
    assert!(add(dir.path(), &many).unwrap_err().to_string().contains("64"));
}

#[test]
fn a_script_that_failed_holds_back_those_behind_it() {
    let mut state = Provisioning::default();
    assert_eq!(state.next(), None);
    state.again(&["a", "b"].map(str::to_owned));
    assert_eq!(state.next().unwrap().name, "a");
    state.ended("a", ScriptState::Failed, Some("oh".to_owned()), 1);
    assert_eq!((state.next(), state.failed(&[]).unwrap().name.as_str()), (None, "a"));
    assert_eq!(state.failed(&["b".to_owned()]), None);
    // One that is asked for is run, whatever became of others.
    state.again(&["c".to_owned()]);
    assert_eq!(state.next().unwrap().name, "c");
    state.ended("c", ScriptState::Done, None, 2);
    assert_eq!(state.next(), None);
    // So are all of them, in their order, each once.
    state.again(&["a", "b", "a"].map(str::to_owned));
    for name in ["a", "b"] {
        assert_eq!(state.next().unwrap().name, name);
        state.ended(name, ScriptState::Done, None, 3);
    }
    assert_eq!((state.next(), state.failed(&[])), (None, None));
}

#[test]
fn what_ran_when_the_machine_went_was_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev");
    fs::create_dir(&path).unwrap();
    begin(&path, &[script("a.sh")]).unwrap();
    let folder = Folder::at(path.clone()).unwrap();
    let mut state = folder.recorded_provisioning().unwrap();
    state.script("a.sh").unwrap().state = ScriptState::Running;
    folder.write_provisioning(&state).unwrap();
    let told = folder.provisioning().unwrap();
    assert_eq!(told.scripts[0].state, ScriptState::Interrupted);
    assert!(told.scripts[0].reason.as_ref().unwrap().contains("a.sh"));
    // A copy has them too, and knows the same.
    let copied = dir.path().join("two");
    fs::create_dir(&copied).unwrap();
    copy(&path, &copied).unwrap();
    let copy = Folder::at(copied).unwrap();
    assert_eq!(copy.recorded_provisioning().unwrap(), told);
    assert_eq!(fs::read(copy.script_path("a.sh")).unwrap(), b"true\n");
}
