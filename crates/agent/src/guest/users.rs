//! Who a command runs as: `/etc/passwd` and `/etc/group`, read directly.
//!
//! A static program has no NSS, and the accounts of an image are in these two files
//! (`passwd(5)`, `group(5)`).

use std::path::Path;

use thiserror::Error;

/// A user, and what a login gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one included.
    pub(crate) groups: Vec<u32>,
    /// `None` for a number that no line of `/etc/passwd` has.
    pub(crate) name: Option<String>,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// There is no such user or group.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum UserError {
    #[error("there is no user {0:?} in the guest's /etc/passwd")]
    NoUser(String),
    #[error("there is no group {0:?} in the guest's /etc/group")]
    NoGroup(String),
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _comment = fields.next()?;
        Some(PasswdLine { name, uid, gid, home: fields.next()?, shell: fields.next()? })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn or_default<'a>(text: &'a str, default: &'a str) -> String {
    if text.is_empty() { default } else { text }.to_owned()
}

/// Finds who `spec` names in the given files: `user` or `user:group`, each a name or a number; a
/// name goes before a number. A group that is given is the only one.
pub(crate) fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Account, UserError> {
    let (user, given_group) = match spec.split_once(':') {
        Some((user, given)) => (user, Some(given)),
        None => (spec, None),
    };
    let number: Option<u32> = user.parse().ok();
    let line = passwd_lines(passwd)
        .find(|line| line.name == user)
        .or_else(|| passwd_lines(passwd).find(|line| Some(line.uid) == number));
    let mut account = match (line, number) {
        (Some(line), _) => Account {
            uid: line.uid,
            gid: line.gid,
            groups: supplementary(line.name, line.gid, group),
            name: Some(line.name.to_owned()),
            home: or_default(line.home, "/"),
            shell: or_default(line.shell, "/bin/sh"),
        },
        (None, Some(uid)) => Account {
            uid,
            gid: 0,
            groups: Vec::new(),
            name: None,
            home: "/".to_owned(),
            shell: "/bin/sh".to_owned(),
        },
        // A root file system without accounts still has its root.
        (None, None) if user == "root" => Account {
            uid: 0,
            gid: 0,
            groups: vec![0],
            name: Some("root".to_owned()),
            home: "/root".to_owned(),
            shell: "/bin/sh".to_owned(),
        },
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    if let Some(given) = given_group {
        account.gid = group_lines(group)
            .find(|line| line.name == given)
            .map(|line| line.gid)
            .or_else(|| given.parse().ok())
            .ok_or_else(|| UserError::NoGroup(given.to_owned()))?;
        account.groups = vec![account.gid];
    }
    Ok(account)
}

fn supplementary(user: &str, primary: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![primary];
    for line in group_lines(group) {
        if line.members.split(',').any(|member| member == user) && !groups.contains(&line.gid) {
            groups.push(line.gid);
        }
    }
    groups
}

/// Finds who `spec` names in this system.
pub(crate) fn look_up(spec: &str) -> Result<Account, UserError> {
    let read = |path: &str| {
        let bytes = std::fs::read(Path::new(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    resolve(spec, &read("/etc/passwd"), &read("/etc/group"))
}

#[cfg(test)]
#[path = "users_test.rs"]
mod tests;
