//! The whole loop with 10, 100 and 1,000 real network namespaces: cold start, a service's new address seen by all that use
//! it and by a few, an audit, a storm of starts and stops, and what the process takes meanwhile.
//!
//! Facts come from [`crate::synthetic`], through the channels Docker's would; everything behind that is the daemon's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use seawall::compile::guard::{Terms, guard};
use seawall::metadata::{
    Inventory, NetnsRef, Observation, Source, Workload, WorkloadId, netns_inode,
};
use seawall::nft::netns::Entrance;
use seawall::nft::{Claim, Netns, Transaction, plan, plan_as};
use seawall::reconcile::{Desired, desire};

use crate::effort::Effort;
use crate::figures::{Figure, Samples, Sheet};
use crate::host::{Commit, Host, Moment};
use crate::loads::{Bare, bytes, removal, script};
use crate::machine::{open_files, processor_time, resident};
use crate::program::{FLOOR, NFT};
use crate::spaces::{Hub, Space, fed};
use crate::synthetic;

/// How many namespaces the nft command is measured in; its time is told for all.
const SAMPLED: usize = 20;
/// The database of the first application: four others and the store know its addresses.
const DATABASE: usize = 4;

pub(crate) fn measure(effort: Effort) -> Sheet {
    let figures = effort.fleets.iter().flat_map(|size| {
        eprintln!("scale: {size} network namespaces");
        Fleet::new(*size, effort.storm.min(*size)).figures(effort)
    });
    let figures = figures.collect();
    Sheet::new("scale", effort.is_quick, figures)
}

/// Namespaces, and who lives there.
struct Fleet {
    size: usize,
    /// How many more there are that are started later.
    storm: usize,
    spaces: Vec<Space>,
    _hub: Hub,
}

impl Fleet {
    fn new(size: usize, storm: usize) -> Self {
        let hub = Hub::new(&format!("s{size}"));
        let all = size + storm;
        let spaces = (0..all).map(|number| {
            let addresses: Vec<IpAddr> = synthetic::workload(number).addresses().collect();
            hub.space(number, &addresses)
        });
        let spaces = spaces.collect();
        hub.connect(0..all);
        Self { size, storm, spaces, _hub: hub }
    }

    fn figures(&self, effort: Effort) -> Vec<Figure> {
        let (rounds, idle) = (effort.few, effort.idle);
        let of = |what: &str| format!("{what}, {} netns", self.size);
        let (memory, files) = (resident(), open_files());

        let host = Host::start();
        let facts: Vec<Workload> = (0..self.size).map(|number| self.facts(number)).collect();
        let began = Moment::now();
        host.tell(Observation::Snapshot { source: Source::Docker, workloads: facts });
        let first = host.commits(self.size);
        let cold = began.until(last(&first));
        let mut figures = vec![
            Figure::times(of("first policy of each"), &took(&first)),
            // Nothing is left over from the start when the last watcher has looked.
            self.settled(&host, began),
        ];
        rest();
        figures.push(Figure::one(of("memory"), "MiB", (resident() - memory) / 1024.0));
        figures.push(Figure::one(of("memory, harness included"), "MiB", resident() / 1024.0));
        figures.push(Figure::one(of("open files"), "", (open_files() - files) as f64));
        let used = processor_time();
        std::thread::sleep(idle);
        let share = (processor_time() - used) / idle.as_secs_f64() * 100.0;
        figures.push(Figure::one(of("idle processor time"), "%", share));

        let audits: Vec<Duration> = (0..rounds).map(|_| timed(|| host.audit())).collect();
        let read = self.read_all(rounds);
        figures.push(
            Figure::times(of("audit of all"), &audits)
                .beside("reading alone", Samples::of_durations(&read)),
        );
        let few = self.moves(&host, DATABASE, rounds);
        let all = self.moves(&host, 0, rounds);
        figures.extend(self.storm(&host));
        host.clear();
        drop(host);

        let floor = Floor::new(self);
        let (cold_floor, cold_nft) = floor.cold(self);
        figures.insert(
            0,
            Figure::times(of("cold start to all enforced"), &[cold])
                .beside(FLOOR, cold_floor)
                .beside(NFT, cold_nft),
        );
        for (what, number, moves) in
            [("new address, few dependents", DATABASE, few), ("new address, all depend", 0, all)]
        {
            let (bare, nft) = floor.moved(self, number, rounds);
            figures.push(Figure::times(of(what), &moves.took).beside(FLOOR, bare).beside(NFT, nft));
            figures.push(Figure::new(of(&format!("{what}: touched")), "netns", moves.touched));
        }
        figures
    }

    /// How long it takes until nothing is left to do: every netns is watched, and was looked at again since.
    fn settled(&self, host: &Host, began: Moment) -> Figure {
        host.settle();
        let now = Moment::now();
        let took = began.until(now.micros());
        Figure::times(format!("cold start to settled, {} netns", self.size), &[took])
    }

    fn facts(&self, number: usize) -> Workload {
        let mut workload = synthetic::workload(number);
        let pid = self.spaces[number].pid();
        let path = format!("/proc/{pid}/ns/net").into();
        workload.netns = Some(NetnsRef { pid, path, inode: netns_inode(pid) });
        workload
    }

    fn moved(&self, number: usize) -> Workload {
        synthetic::moved(self.facts(number), number)
    }

    /// One workload gets other addresses and its own again, by turns: from the word of it until the last who knows it has
    /// them. Its netns follows later: what is read there meanwhile is not measured.
    fn moves(&self, host: &Host, number: usize, rounds: usize) -> Moves {
        host.settle();
        host.made();
        let (mut took, mut touched) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let (from, to) = match round % 2 {
                0 => (self.facts(number), self.moved(number)),
                _ => (self.moved(number), self.facts(number)),
            };
            let commands = readdressed(&from, &to);
            let began = Moment::now();
            host.tell(Observation::Upsert(Box::new(to)));
            host.settle();
            // What is told of a transaction comes after the answer.
            std::thread::sleep(Duration::from_millis(50));
            let made = host.made();
            took.push(began.until(last(&made)));
            touched.push(made.len() as f64);
            let space = &self.spaces[number];
            space.inside(move || fed(Command::new("ip").args(["-batch", "-"]), &commands));
            std::thread::sleep(Duration::from_millis(150));
            host.settle();
            host.made();
        }
        Moves { took, touched: Samples::new(touched) }
    }

    /// Starts all at once, and then ends them all at once.
    fn storm(&self, host: &Host) -> Vec<Figure> {
        let many = self.storm;
        let of = |what: &str| format!("{what} {many} at once, {} netns", self.size);
        let facts: Vec<Workload> =
            (self.size..self.size + many).map(|number| self.facts(number)).collect();
        let ids: Vec<WorkloadId> = facts.iter().map(|one| one.id.clone()).collect();
        let mut told = BTreeMap::new();
        let began = Moment::now();
        for one in facts {
            told.insert(one.id.to_string(), Moment::now());
            host.tell(Observation::Upsert(Box::new(one)));
        }
        let mut first: BTreeMap<String, u64> = BTreeMap::new();
        while first.len() < many {
            for commit in host.commits(1) {
                if told.contains_key(&commit.id) {
                    first.entry(commit.id).or_insert(commit.at);
                }
            }
        }
        let each: Vec<Duration> = first.iter().map(|(id, at)| told[id].until(*at)).collect();
        let all = began.until(first.values().copied().max().unwrap());
        host.settle();
        host.made();
        let began = Instant::now();
        for id in ids {
            host.tell(Observation::Removed(id));
        }
        host.settle();
        let ended = began.elapsed();
        vec![
            Figure::times(of("starting, each:"), &each),
            Figure::times(of("starting, all:"), &[all]),
            Figure::times(of("ending, until nobody knows them:"), &[ended]),
        ]
    }

    /// Reads every netns' tables, and does nothing else.
    fn read_all(&self, rounds: usize) -> Vec<Duration> {
        let entrance = Entrance::start().unwrap();
        let open = |space: &Space| {
            let netns = Netns::of_pid(space.pid()).unwrap();
            entrance.open_table(&netns).unwrap()
        };
        let mut tables: Vec<_> = self.spaces[..self.size].iter().map(open).collect();
        let mut read = || timed(|| tables.iter_mut().for_each(|table| drop(table.dump().unwrap())));
        (0..rounds.min(5)).map(|_| read()).collect()
    }
}

/// What moving a workload took, and how many netns were changed for it.
struct Moves {
    took: Vec<Duration>,
    touched: Samples,
}

/// The same work with nothing around it: batches are made beforehand, and sent by bare sockets on all processors.
struct Floor {
    inventory: Inventory,
    desired: Desired,
    first: Vec<(usize, Transaction)>,
}

impl Floor {
    fn new(fleet: &Fleet) -> Self {
        let inventory: Inventory = (0..fleet.size).map(|number| fleet.facts(number)).collect();
        let desired = desire(&inventory, &synthetic::rules());
        let entrance = Entrance::start().unwrap();
        let first = (0..fleet.size).map(|number| {
            let wanted = desired.wanted(&synthetic::workload(number).id);
            let netns = Netns::of_pid(fleet.spaces[number].pid()).unwrap();
            let links = entrance.look(&netns, false).unwrap().links;
            let terms: &Terms = &wanted.guard;
            let own = terms.own(&links, true);
            let table = wanted.table.as_ref().map(|table| table.sending_from(&own));
            let guard = table.as_ref().and_then(|table| guard(terms, &links, &own, table));
            let claim = Claim { is_owned: true, ..Claim::default() };
            let policy = plan_as(None, table.as_deref(), claim);
            (number, policy.with(plan_as(None, guard.as_ref(), claim)))
        });
        let first = first.collect();
        Self { inventory, desired, first }
    }

    /// First policies of all, by bare sockets; and the nft command's time for all, by a sample.
    fn cold(&self, fleet: &Fleet) -> (Samples, Samples) {
        let rounds = (0..3).map(|_| {
            let sockets = std::sync::Mutex::new(Vec::new());
            let batches = self.batches(self.first.iter());
            let took = parallel(fleet, &batches, |_, batch| {
                let bare = Bare::open();
                bare.send(batch);
                sockets.lock().unwrap().push(bare);
            });
            drop(sockets);
            self.remove(fleet);
            took
        });
        let bare = Samples::of_durations(&rounds.collect::<Vec<_>>());
        let sampled: Vec<Duration> = self
            .first
            .iter()
            .take(SAMPLED)
            .map(|(number, transaction)| {
                let script = script(transaction);
                let took = loaded(&fleet.spaces[*number], script);
                fleet.spaces[*number].inside(|| loaded_here("flush ruleset\n"));
                took
            })
            .collect();
        (bare, for_all(&sampled, self.first.len()))
    }

    /// The changes when one workload gets other addresses.
    fn moved(&self, fleet: &Fleet, number: usize, rounds: usize) -> (Samples, Samples) {
        let mut inventory = self.inventory.clone();
        inventory.upsert(fleet.moved(number));
        let after = desire(&inventory, &synthetic::rules());
        let changes = |from: &Desired, to: &Desired| -> Vec<(usize, Transaction)> {
            let changed = self.first.iter().filter_map(|(number, _)| {
                let id = synthetic::workload(*number).id;
                let (from, to) = (from.wanted(&id).table, to.wanted(&id).table);
                (from != to).then(|| (*number, plan(from.as_deref(), to.as_deref())))
            });
            changed.collect()
        };
        let ways = [changes(&self.desired, &after), changes(&after, &self.desired)];
        let touched: Vec<&(usize, Transaction)> = {
            let numbers: Vec<usize> = ways[0].iter().map(|(number, _)| *number).collect();
            self.first.iter().filter(|(number, _)| numbers.contains(number)).collect()
        };
        let sockets: BTreeMap<usize, Bare> = touched
            .iter()
            .map(|(number, transaction)| {
                let batch = bytes(transaction);
                let bare = fleet.spaces[*number].inside(move || {
                    let bare = Bare::open();
                    bare.send(&batch);
                    bare
                });
                (*number, bare)
            })
            .collect();
        let batches = ways.each_ref().map(|way| self.batches(way.iter()));
        let bare = (0..rounds).map(|round| {
            let batches = &batches[round % 2];
            // A socket acts on its own netns, whichever thread uses it.
            spread(batches, |(number, batch)| sockets[number].send(batch))
        });
        let bare = Samples::of_durations(&bare.collect::<Vec<_>>());
        touched
            .iter()
            .for_each(|(number, transaction)| sockets[number].send(&removal(transaction)));
        let sampled: Vec<Duration> = ways[0]
            .iter()
            .take(SAMPLED)
            .map(|(number, change)| {
                let space = &fleet.spaces[*number];
                loaded(space, script(&self.first[*number].1));
                let took = loaded(space, script(change));
                space.inside(|| loaded_here("flush ruleset\n"));
                took
            })
            .collect();
        (bare, for_all(&sampled, ways[0].len()))
    }

    fn batches<'a>(
        &self,
        of: impl Iterator<Item = &'a (usize, Transaction)>,
    ) -> Vec<(usize, Vec<u8>)> {
        of.map(|(number, transaction)| (*number, bytes(transaction))).collect()
    }

    /// What nobody owns any more is adopted by nobody: anybody may take it away.
    fn remove(&self, fleet: &Fleet) {
        let removals: Vec<(usize, Vec<u8>)> = self
            .first
            .iter()
            .map(|(number, transaction)| (*number, removal(transaction)))
            .collect();
        parallel(fleet, &removals, |_, batch| Bare::open().send(batch));
    }
}

/// Waits until this process does next to nothing: what was begun beside the loop is done as well.
fn rest() {
    const LOOK: Duration = Duration::from_millis(500);
    for _ in 0..40 {
        let used = processor_time();
        std::thread::sleep(LOOK);
        if processor_time() - used < LOOK.as_secs_f64() / 100.0 {
            return;
        }
    }
}

/// What takes a workload's addresses from its link and gives it others.
fn readdressed(from: &Workload, to: &Workload) -> String {
    let command = |word: &str, address: IpAddr| match address {
        IpAddr::V4(address) => format!("addr {word} {address}/16 dev eth0\n"),
        IpAddr::V6(address) if word == "add" => format!("addr add {address}/64 dev eth0 nodad\n"),
        IpAddr::V6(address) => format!("addr {word} {address}/64 dev eth0\n"),
    };
    let added = to.addresses().map(|address| command("add", address));
    let removed = from.addresses().map(|address| command("del", address));
    removed.chain(added).collect()
}

/// The middle of what was sampled, for so many.
fn for_all(sampled: &[Duration], many: usize) -> Samples {
    let one = Samples::of_durations(sampled).p50;
    Samples::new(vec![one * many as f64])
}

/// Does something in each netns, on as many threads as there are processors.
fn parallel(
    fleet: &Fleet,
    work: &[(usize, Vec<u8>)],
    each: impl Fn(usize, &[u8]) + Sync,
) -> Duration {
    spread(work, |(number, batch)| {
        let path = format!("/proc/{}/ns/net", fleet.spaces[*number].pid());
        let file = std::fs::File::open(path).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        each(*number, batch);
    })
}

/// Spreads work over as many threads as there are processors.
fn spread(work: &[(usize, Vec<u8>)], each: impl Fn(&(usize, Vec<u8>)) + Sync) -> Duration {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = work.len().div_ceil(threads).max(1);
    timed(|| {
        std::thread::scope(|scope| {
            for work in work.chunks(share) {
                let each = &each;
                scope.spawn(move || work.iter().for_each(each));
            }
        });
    })
}

/// Has the nft command load this in a netns; from its start to its end.
fn loaded(space: &Space, script: String) -> Duration {
    space.inside(move || timed(|| loaded_here(&script)))
}

fn loaded_here(script: &str) {
    fed(Command::new("nft").args(["-f", "-"]), script);
}

fn timed(run: impl FnOnce()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

fn last(commits: &[Commit]) -> u64 {
    commits.iter().map(|commit| commit.at).max().unwrap_or_default()
}

fn took(commits: &[Commit]) -> Vec<Duration> {
    commits.iter().map(|commit| commit.took).collect()
}
