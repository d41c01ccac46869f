//! Owns where each netns' denials and connections are heard: asking for it once, taking it over, and asking again for what
//! somebody else had.

use tokio::sync::oneshot;

use super::kept::SlowToClose;
use crate::metadata::WorkloadId;
use crate::nft::listen::Listeners;

/// An answer to who asked to listen.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) owner: WorkloadId,
    pub(super) pid: u32,
    pub(super) inode: u64,
    /// The sockets, or why there are none; nothing is to be said where the netns has gone.
    pub(super) listeners: Result<SlowToClose<Listeners>, Option<String>>,
}

/// Where one netns is heard.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    inode: u64,
    listeners: SlowToClose<Listeners>,
    /// While this is held they are read, for the workload that stands for the netns.
    held: Option<oneshot::Sender<()>>,
    is_asked: bool,
    has_answer: bool,
    /// What was said to be missing.
    said: Option<String>,
}

/// What an answer changes.
#[derive(Debug)]
pub(super) struct Change {
    /// What is to be read, and until when.
    pub(super) read: Option<(Listeners, oneshot::Receiver<()>)>,
    /// What is not heard, where that was not said before.
    pub(super) missing: Option<String>,
}

impl Hearing {
    /// Which netns it is, where something of it is heard.
    pub(super) fn inode(&self) -> Option<u64> {
        self.listeners.get().map(|_| self.inode)
    }

    /// The same for another workload that stands for the netns from now on: what is still unread is its own.
    pub(super) fn handed_over(self) -> Self {
        Self { held: None, is_asked: false, has_answer: false, ..self }
    }

    /// Asks again for what is missing.
    pub(super) fn retry(&mut self) {
        let is_whole =
            self.is_read() && self.listeners.get().is_some_and(|one| one.missing().is_none());
        self.has_answer &= is_whole;
    }

    /// Whether to ask now; whoever is told so asks. Only one asks at a time: of two, one would find the other in its way.
    pub(super) fn begin(&mut self, inode: u64) -> bool {
        let has_answer = self.has_answer && self.inode == inode;
        let is_wanted = !self.is_asked && !has_answer;
        self.is_asked |= is_wanted;
        is_wanted
    }

    /// Whether somebody asks now.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// What is heard already, of this netns.
    pub(super) fn former(&self, inode: u64) -> Option<Listeners> {
        self.listeners.get().filter(|_| self.inode == inode).cloned()
    }

    /// Whether somebody reads what is heard. Whoever did may have failed.
    fn is_read(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.is_closed())
    }

    /// Takes an answer.
    pub(super) fn take(
        &mut self,
        inode: u64,
        answer: Result<SlowToClose<Listeners>, Option<String>>,
    ) -> Change {
        (self.is_asked, self.has_answer) = (false, true);
        let is_read = self.inode == inode && self.is_read();
        let before = self.listeners.get().filter(|_| is_read).map(heard);
        let (now, read) = match answer {
            Ok(new) => {
                // Two who stood for the netns one after the other may both have asked: what hears no more than what there
                // is found that in its way.
                let gains = |[denials, answers]: [bool; 2]| match before {
                    Some(before) => denials && !before[0] || answers && !before[1],
                    None => true,
                };
                let is_new = new.get().map(heard).is_some_and(gains);
                let read = new.get().filter(|_| is_new).cloned().map(|sockets| {
                    let (held, until) = oneshot::channel();
                    self.held = Some(held);
                    (sockets, until)
                });
                if is_new {
                    (self.inode, self.listeners) = (inode, new);
                }
                (self.listeners.get().and_then(Listeners::missing).map(str::to_owned), read)
            }
            Err(why) => (why, None),
        };
        let is_said = self.said == now;
        self.said.clone_from(&now);
        Change { read, missing: now.filter(|_| !is_said) }
    }
}

/// Which of the groups are heard.
fn heard(listeners: &Listeners) -> [bool; 2] {
    [listeners.denials.is_ok(), listeners.answers.is_ok()]
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::*;

    fn sockets(denials: Result<(), &str>) -> SlowToClose<Listeners> {
        let ear = || Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let denials = denials.map(|()| ear()).map_err(str::to_owned);
        Some(Listeners { denials, answers: Ok(ear()), connections: ear() }).into()
    }

    #[test]
    fn one_asks_at_a_time_and_again_only_for_what_is_missing() {
        let mut hearing = Hearing::default();
        assert!(hearing.begin(7));
        assert!(!hearing.begin(7), "while one asks no other does");
        let change = hearing.take(7, Ok(sockets(Err("another has it"))));
        assert_eq!(change.missing.as_deref(), Some("another has it"));
        let (_, mut first) = change.read.unwrap();
        assert!(!hearing.begin(7), "it has an answer");

        hearing.retry();
        assert!(hearing.begin(7));
        let change = hearing.take(7, Ok(sockets(Err("another has it"))));
        assert!(change.read.is_none() && change.missing.is_none(), "said, and read, once");
        assert!(first.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));

        hearing.retry();
        assert!(hearing.begin(7));
        let change = hearing.take(7, Ok(sockets(Ok(()))));
        assert!(change.read.is_some() && change.missing.is_none());
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed), "the former ends");
        hearing.retry();
        assert!(!hearing.begin(7), "nothing is missing any more");
        assert!(hearing.begin(8), "another netns is another matter");
        drop(hearing.take(8, Ok(sockets(Ok(())))));
        hearing.retry();
        assert!(hearing.begin(8), "nobody reads it");
    }

    #[test]
    fn an_answer_that_hears_less_takes_nothing_away() {
        let mut hearing = Hearing::default();
        assert!(hearing.begin(7));
        let (_, mut until) = hearing.take(7, Ok(sockets(Ok(())))).read.unwrap();
        let change = hearing.take(7, Ok(sockets(Err("another has it: we do"))));
        assert!(change.read.is_none() && change.missing.is_none());
        assert!(until.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(hearing.former(7).unwrap().denials.is_ok());
    }

    #[test]
    fn who_takes_over_reads_what_is_heard_already() {
        let mut hearing = Hearing::default();
        assert!(hearing.begin(7));
        let (_, mut until) = hearing.take(7, Ok(sockets(Ok(())))).read.unwrap();
        let mut next = hearing.handed_over();
        assert_eq!(until.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(next.begin(7) && next.former(7).is_some() && next.former(8).is_none());
        let again = next.former(7).unwrap().again().unwrap();
        assert!(next.take(7, Ok(Some(again).into())).read.is_some());
    }
}
