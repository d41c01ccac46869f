//! Owns the OCI runtime wrapper: what containerd's shim calls in the runtime's place, so that a container's first
//! instruction waits for its policy (security model 1); and installing it.
//!
//! `arguments` reads a runtime's command line, `task` finds the process it is about, `wrapper` asks the daemon and then
//! becomes the real runtime, `closed` is what is done when nobody answers. `place` is where the wrapper lies on disk;
//! `docker`, `containerd` and `podman` make engines use it, `files` changes their files, `dockerd` has Docker read its own,
//! `holders` finds who still needs it.
//!
//! Must not touch anything of a runtime's call but its time: arguments, environment, file descriptors, console and exit code
//! are the real runtime's, which takes this process over.

pub mod arguments;
pub mod containerd;
pub mod docker;
pub mod dockerd;
pub mod files;
pub mod holders;
pub mod place;
pub mod podman;
pub mod task;
pub mod wrapper;

pub use place::{Place, PlaceError};
pub use wrapper::Wrapper;
