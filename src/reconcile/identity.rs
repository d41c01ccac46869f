//! Owns making sure that a pid a source told is still that container's process, and not somebody else's by now.
//!
//! Between the event and the first look at the process it may have ended and its number may have been given away
//! (security model 3). From then on the process is held by pidfd and cannot be mistaken.

use std::path::PathBuf;

use crate::input::Text;
use crate::metadata::WorkloadId;
use crate::nft::NetnsError;
use crate::nft::netns::Process;

/// Takes hold of a container's first process. Gone, when its cgroup says that it is another container's.
pub(super) fn open(pid: u32, id: &WorkloadId) -> Result<Process, NetnsError> {
    let process = Process::open(pid)?;
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    // Read after the process is held: what is read is that of the process held, or of none.
    let cgroups = std::fs::read_to_string(&path).unwrap_or_default();
    if names_another(&cgroups, id.as_str()) { Err(NetnsError::Gone(path)) } else { Ok(process) }
}

/// Whether a process is one of a container, whose first process and id are given: in its pid namespace, or in its cgroup.
/// Not so for one that ended already, of which nothing can be told.
pub(super) fn is_of_container(pid: u32, first: u32, id: &WorkloadId) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    let theirs = namespace(&pid.to_string());
    let is_in_namespace =
        theirs.is_some() && theirs == namespace(&first.to_string()) && theirs != namespace("self");
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    is_in_namespace || ids_in(&cgroups).any(|named| named == id.as_str())
}

/// The process a thread is of, and what it calls itself; nothing once it has ended (`proc(5)`: `Tgid` in `status`).
pub(super) fn process_of(thread: u32) -> Option<(u32, Text)> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, Text::new(name.trim_end())))
}

/// Whether a process's cgroups (`/proc/PID/cgroup`, version 1 or 2) are those of a container with another id.
///
/// Runtimes name a container's cgroup after it: `/docker/ID`, `docker-ID.scope`, `cri-containerd-ID.scope`. Where no
/// container is named nothing is said.
fn names_another(cgroups: &str, id: &str) -> bool {
    let named: Vec<&str> = ids_in(cgroups).collect();
    is_container_id(id) && !named.is_empty() && !named.contains(&id)
}

fn ids_in(cgroups: &str) -> impl Iterator<Item = &str> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).filter_map(container_id)
}

fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let id = name.rsplit_once(['-', ':']).map_or(name, |(_, id)| id);
    is_container_id(id).then_some(id)
}

fn is_container_id(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cgroup_that_names_another_container_says_that_it_is_another() {
        let (ours, other) = ("a1".repeat(32), "b2".repeat(32));
        let cases = [
            (format!("12:pids:/docker/{ours}\n0::/\n"), false),
            (format!("12:pids:/docker/{other}\n0::/\n"), true),
            (format!("0::/system.slice/docker-{ours}.scope\n"), false),
            (format!("0::/system.slice/docker-{other}.scope\n"), true),
            (format!("0::/kubepods.slice/kubepods-pod7.slice/cri-containerd-{other}.scope"), true),
            (format!("0::/k8s.io/kubepods-x.slice:cri-containerd:{ours}\n"), false),
            // Docker in Docker: both are named.
            (format!("0::/docker/{other}/docker/{ours}\n"), false),
            (format!("0::/docker/{ours}/init.scope\n"), false),
            // Nothing is said.
            ("0::/user.slice/user-0.slice/session-1.scope\n".to_owned(), false),
            ("0::/\n".to_owned(), false),
            (String::new(), false),
        ];
        for (cgroups, expected) in cases {
            assert_eq!(names_another(&cgroups, &ours), expected, "{cgroups}");
        }
        assert!(!names_another(&format!("0::/docker/{other}\n"), "my-own-name"), "no such ids");
    }
}
