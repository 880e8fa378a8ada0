//! Folders of the host, shared with a guest.
//!
//! This floor is empty until the issue that builds it. What it is for: a folder of the host mounted
//! live in the guest, and carried along when a machine is snapshotted, forked or moved to another
//! engine.
//!
//! Its walls stand already: it reaches the one directory it was given and nothing else, whatever the
//! guest asks for (wall 5); it knows neither devices nor engines; and its open files are data that
//! can be given up and built again (wall 4).
