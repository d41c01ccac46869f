//! Owns judging the kernel by what was tried in it.

use super::check::Check;
use super::host::Caller;
use super::trial::Trial;
use crate::input::Text;
use crate::nft::owner::{OWNER, PERSIST};

/// What was found out of the kernel.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Its release, `uname -r`.
    pub(super) release: Text,
    /// What was tried; `Err` where there was no place to try it in.
    pub(super) trial: Result<Trial, String>,
}

/// Tries the kernel, where this call may.
pub(super) fn read(caller: &Caller) -> Facts {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let trial = match caller.may_try() {
        true => super::trial::run(),
        false => Err(String::new()),
    };
    Facts { release: Text::new(release.trim()), trial }
}

const NOTHING: &str = "no container gets a policy";
const TRIED: [&str; 9] = [
    "kernel.tables",
    "kernel.owner",
    "kernel.intervals",
    "kernel.guard",
    "kernel.xdp",
    "kernel.nflog",
    "kernel.conntrack",
    "kernel.accounting",
    "kernel.helpers",
];

pub(super) fn judge(facts: &Facts, caller: &Caller, wants_ownership: bool) -> Vec<Check> {
    let mut checks = vec![Check::ok("kernel.version", format!("Linux {}", facts.release))];
    let trial = match &facts.trial {
        _ if !caller.may_try() => {
            let why = "not tried: that needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN)";
            checks.push(Check::unknown("kernel.scratch", why));
            checks.extend(TRIED.map(|id| Check::unknown(id, "not tried")));
            return checks;
        }
        Err(why) => {
            checks.push(Check::missing(
                "kernel.scratch",
                &[1, 4],
                why.clone(),
                "the kernel could not be tried; containers need the same of it",
                "load the module (`modprobe veth`), or use a kernel with CONFIG_NET_NS and CONFIG_VETH",
            ));
            checks.extend(TRIED.map(|id| Check::skipped(id, "not tried")));
            return checks;
        }
        Ok(trial) => trial,
    };
    let made = "a network namespace was made to try it in, and is gone";
    checks.push(Check::ok("kernel.scratch", made));
    if let Err(why) = &trial.tables {
        checks.push(Check::missing(
            "kernel.tables",
            &[1, 2, 3, 4, 5, 6],
            why.clone(),
            NOTHING,
            "use a kernel of 5.7 or newer; load what a refused rule needs: modprobe -a nf_tables nft_ct nft_limit nft_log \
             nfnetlink_log nft_reject_inet",
        ));
        checks.extend(
            TRIED[1..].iter().map(|id| Check::skipped(id, "not tried: no ruleset is taken")),
        );
        return checks;
    }
    let read_back = "a compiled ruleset was taken, read back the same, and denied a packet";
    checks.push(Check::ok("kernel.tables", read_back));
    checks.push(owner(trial, wants_ownership));
    checks.push(match &trial.intervals {
        Ok(()) => Check::ok("kernel.intervals", "ranges of addresses and ports are taken"),
        Err(why) => Check::missing(
            "kernel.intervals",
            &[4],
            why.clone(),
            "who may reach an address range or the world gets no policy at all",
            "use a kernel of 5.6 or newer",
        ),
    });
    checks.push(match &trial.guard {
        Ok(()) => Check::ok("kernel.guard", "links can be guarded as packets leave (netdev egress)"),
        Err(why) => Check::missing(
            "kernel.guard",
            &[4],
            why.clone(),
            "packet sockets get past the policy of a container that holds NET_RAW; it is shown as degraded",
            "use a kernel of 5.16 or newer with CONFIG_NETFILTER_EGRESS, or start containers with --cap-drop NET_RAW",
        ),
    });
    checks.push(match &trial.xdp {
        Ok(()) => Check::ok("kernel.xdp", "links can be kept from AF_XDP sockets"),
        Err(why) => Check::missing(
            "kernel.xdp",
            &[4],
            why.clone(),
            "AF_XDP sockets get past the policy of a container that holds NET_RAW; it is shown as degraded",
            "start containers with --cap-drop NET_RAW",
        ),
    });
    checks.push(match &trial.nflog {
        Ok(()) => Check::ok("kernel.nflog", "a denied packet was told of"),
        Err(why) => Check::warning(
            "kernel.nflog",
            why.clone(),
            "denials are counted but not listed: `events`, `explain` and `learn` know nothing of them",
            "modprobe nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG, CONFIG_NFT_LOG)",
        ),
    });
    checks.push(match &trial.conntrack {
        Ok(()) => Check::ok("kernel.conntrack", "a connection was told of"),
        Err(why) => Check::warning(
            "kernel.conntrack",
            why.clone(),
            "connections are not recorded: `flows` and `learn` know nothing of them",
            "modprobe nf_conntrack_netlink (CONFIG_NF_CT_NETLINK, CONFIG_NF_CONNTRACK_EVENTS)",
        ),
    });
    checks.push(match &trial.accounting {
        Ok(()) => Check::ok("kernel.accounting", "their packets and bytes are counted"),
        Err(why) => Check::warning(
            "kernel.accounting",
            why.clone(),
            "`flows` shows no bytes",
            "use a kernel whose net.netfilter.nf_conntrack_acct can be set",
        ),
    });
    checks.push(helpers(trial));
    checks
}

fn owner(trial: &Trial, wants_ownership: bool) -> Check {
    let flags = trial.state.map_or(0, |state| state.flags);
    if flags & (OWNER | PERSIST) != OWNER | PERSIST {
        return Check::warning(
            "kernel.owner",
            "this kernel has no owned tables that outlive their owner (Linux 6.9)",
            "others can change tables of seawall's; that is noticed and repaired instead of prevented",
            "use a kernel of 6.9 or newer",
        );
    }
    if !wants_ownership {
        return Check::warning(
            "kernel.owner",
            "owned tables work, and are turned off (ownership = \"off\")",
            "others can change tables of seawall's; that is noticed and repaired instead of prevented",
            "remove `ownership` from seawall.toml and restart the daemon",
        );
    }
    Check::ok("kernel.owner", "tables are seawall's own, and outlive it")
}

fn helpers(trial: &Trial) -> Check {
    if trial.helpers.is_empty() {
        return Check::ok(
            "kernel.helpers",
            "data connections of ftp, sip and tftp can be followed",
        );
    }
    let modules: Vec<String> =
        trial.helpers.iter().map(|helper| format!("nf_conntrack_{helper}")).collect();
    let names: Vec<&str> = trial.helpers.iter().map(|helper| helper.as_str()).collect();
    Check::warning(
        "kernel.helpers",
        format!("no helper for {}", names.join(", ")),
        "data connections that such a helper would find stay closed",
        format!("modprobe -a {}", modules.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::Outcome;
    use super::*;
    use crate::model::Helper;
    use crate::nft::TableState;

    fn good() -> Trial {
        Trial {
            tables: Ok(()),
            state: Some(TableState { flags: OWNER | PERSIST, owner: Some(7) }),
            intervals: Ok(()),
            guard: Ok(()),
            xdp: Ok(()),
            nflog: Ok(()),
            conntrack: Ok(()),
            accounting: Ok(()),
            helpers: Vec::new(),
        }
    }

    fn judged(trial: Result<Trial, String>, caller: &Caller) -> Vec<Check> {
        judge(&Facts { release: Text::new("6.18.0"), trial }, caller, true)
    }

    #[test]
    fn a_kernel_with_everything_has_nothing_to_be_told_of() {
        let checks = judged(Ok(good()), &Caller::root());
        assert!(checks.iter().all(|check| check.result == Outcome::Ok), "{checks:#?}");
        assert_eq!(checks.len(), TRIED.len() + 2);
    }

    #[test]
    fn each_thing_a_kernel_lacks_is_told_with_what_it_costs() {
        type Change = fn(&mut Trial);
        let cases: [(&str, Change, Outcome, &[u8]); 8] = [
            (
                "kernel.owner",
                |trial| trial.state = Some(TableState::default()),
                Outcome::Warning,
                &[],
            ),
            ("kernel.intervals", |trial| trial.intervals = no(), Outcome::Missing, &[4]),
            ("kernel.guard", |trial| trial.guard = no(), Outcome::Missing, &[4]),
            ("kernel.xdp", |trial| trial.xdp = no(), Outcome::Missing, &[4]),
            ("kernel.nflog", |trial| trial.nflog = no(), Outcome::Warning, &[]),
            ("kernel.conntrack", |trial| trial.conntrack = no(), Outcome::Warning, &[]),
            ("kernel.accounting", |trial| trial.accounting = no(), Outcome::Warning, &[]),
            ("kernel.helpers", |trial| trial.helpers = vec![Helper::Sip], Outcome::Warning, &[]),
        ];
        for (id, change, result, promises) in cases {
            let mut trial = good();
            change(&mut trial);
            let checks = judged(Ok(trial), &Caller::root());
            let bad: Vec<_> = checks.iter().filter(|one| one.result != Outcome::Ok).collect();
            assert_eq!(bad.len(), 1, "{id}: {checks:#?}");
            assert_eq!((bad[0].id, bad[0].result, bad[0].promises), (id, result, promises));
            assert!(bad[0].costs.is_some() && bad[0].remedy.is_some(), "{id}");
        }
    }

    fn no() -> Result<(), String> {
        Err("the kernel refused".to_owned())
    }

    #[test]
    fn what_was_not_tried_is_not_said_to_work() {
        let stranger = Caller { is_root: false, capabilities: 0 };
        let untried = judged(Err(String::new()), &stranger);
        let tables = judged(Ok(Trial { tables: no(), ..good() }), &Caller::root());
        for checks in [&untried, &tables] {
            let ok: Vec<_> = checks.iter().filter(|one| one.result == Outcome::Ok).collect();
            assert!(ok.iter().all(|one| ["kernel.version", "kernel.scratch"].contains(&one.id)));
            assert_eq!(checks.len(), TRIED.len() + 2);
        }
        let scratch = judged(no().map(|()| good()), &Caller::root());
        assert_eq!(scratch[1].result, Outcome::Missing);
    }

    #[test]
    fn ownership_that_is_turned_off_is_told_of() {
        let facts = Facts { release: Text::new("6.18.0"), trial: Ok(good()) };
        let checks = judge(&facts, &Caller::root(), false);
        let owner = checks.iter().find(|one| one.id == "kernel.owner").unwrap();
        assert_eq!(owner.result, Outcome::Warning);
        assert!(owner.found.contains("turned off"));
    }
}
