use super::{EngineKind, VmConfig};
use crate::CpuModel;

#[test]
fn engines_have_one_name_everywhere() {
    for engine in EngineKind::ALL {
        assert_eq!(engine.to_string().parse(), Ok(engine));
        assert_eq!(serde_json::to_string(&engine).unwrap(), format!("\"{engine}\""));
    }
    assert_eq!(format!("{:>12}", EngineKind::SoftInterpreter), " soft:interp");
}

#[test]
fn what_is_no_engine_is_told_which_there_are() {
    for word in ["qemu", "", "Soft", "soft:", "soft:fast", "soft:interp ", "interp"] {
        let error = word.parse::<EngineKind>().unwrap_err();
        let expected =
            format!("'{word}' is not an engine: expected auto, soft, soft:interp or kvm");
        assert_eq!(error, expected);
    }
}

#[test]
fn the_usual_code_cache_is_one_that_can_be_asked_for() {
    assert_eq!(VmConfig::CODE_CACHE, 1 << 20..=1 << 30);
    assert!(VmConfig::CODE_CACHE.contains(&VmConfig::DEFAULT_CODE_CACHE));
    assert_eq!(VmConfig::default().code_cache, 64 << 20);
}

#[test]
fn processor_models_have_one_name_everywhere() {
    for model in CpuModel::ALL {
        assert_eq!(model.to_string().parse(), Ok(model));
        assert_eq!(serde_json::to_string(&model).unwrap(), format!("\"{model}\""));
    }
    let error = "qemu64".parse::<CpuModel>().unwrap_err();
    assert_eq!(error, "'qemu64' is not a processor model: expected riad-v1 or host");
}
