//! Making a guest fit its user: at its first start, and again when something else is wanted of it, as
//! another name. `setup.sh` does it, in the guest.

use riad_agent::client::ExitStatus;
use riad_agent::protocol::ExecRequest;

use super::settle::ask;
use super::shared::{Shared, Ways};
use crate::Stage;
use crate::journal::Event;
use crate::limits::Limits;
use crate::machines::{Folder, MachineConfig, SetupDone};

const SCRIPT: &str = include_str!("setup.sh");

/// What a guest is to be made to fit, if it has not been.
pub(super) fn wanted(folder: &Folder, config: &MachineConfig) -> Option<SetupDone> {
    let wanted = SetupDone::wanted(folder.name().as_str(), &config.guest);
    // A file that cannot be read is written again.
    let done = folder.setup_done().inspect_err(|error| tracing::warn!(%error, "set up again"));
    (done.ok().flatten().as_ref() != Some(&wanted)).then_some(wanted)
}

/// Does it, and writes down that it was done. A guest that could not be set up is no reason not to
/// use it; whoever starts it is told.
pub(super) fn run(shared: &Shared, ways: &Ways, wanted: &SetupDone, limits: Limits) {
    let limit = limits.of(Stage::Setup);
    let reason = match ask(ways, &request(wanted), limit) {
        Ok((ExitStatus::Exited(0), _)) => match shared.folder().write_setup_done(wanted) {
            Ok(()) => {
                shared.say(&Event::SetUp {});
                return;
            }
            Err(error) => error.to_string(),
        },
        Ok((_, said)) if !said.is_empty() => said,
        Ok((status, _)) => format!("the script ended with status {}", status.shell_code()),
        Err(error) => error.to_string(),
    };
    shared.warn(format!("user, keys, locale and time zone could not be set up: {reason}"));
    shared.say(&Event::SetUpFailed { reason });
}

fn request(wanted: &SetupDone) -> ExecRequest {
    let SetupDone { schema: _, hostname, guest } = wanted;
    let uid = guest.user.as_ref().and_then(|user| user.uid);
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    ExecRequest::new(["/bin/sh", "-c", SCRIPT])
        .with_env("RIAD_HOSTNAME", hostname)
        .with_env("RIAD_USER", guest.user.as_ref().map_or("", |user| &user.name))
        .with_env("RIAD_UID", uid.map(|uid| uid.to_string()).unwrap_or_default())
        .with_env("RIAD_KEYS", guest.keys.join("\n"))
        .with_env("RIAD_LOCALE", text(&guest.locale))
        .with_env("RIAD_ZONE", text(&guest.time_zone))
}
