//! Owns keeping from a netlink socket what one certain sender causes.
//!
//! A classic BPF program (`linux/filter.h`), run by the kernel for each message before it is put into the socket
//! (`do_one_broadcast`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Where `nlmsg_pid` stands in a message (`struct nlmsghdr`).
const PORT_ID: u32 = 12;

/// From now on the socket is told nothing of what this port id caused. A transaction's messages all carry the port id of who
/// committed it, so looking at the first of them is enough.
///
/// Errors: what `setsockopt(SO_ATTACH_FILTER)` says.
pub fn leave_out(socket: &OwnedFd, port_id: u32) -> io::Result<()> {
    let step = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let mut program = [
        // Loaded as a number in network byte order; it is written in the machine's.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, PORT_ID, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, port_id.to_be(), 1),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, of which length and place are told truly.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
