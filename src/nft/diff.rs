//! Owns planning: the smallest transaction that leads from what the kernel holds to what is wanted.
//!
//! Pure. The order of operations is the order of the batch: what is needed first is made first, what is still
//! referred to is removed last, so that the kernel accepts it and no packet meets half a ruleset (security model 6).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::owner::{Claim, Present};
use super::render::{self, name};
use crate::compile::expand::Role;
use crate::compile::helped::{CtHelper, HelperRole};
use crate::compile::ruleset::{
    Base, Chain, Comment, Element, Generation, Rule, Ruleset, Set, Stmt, TableFamily,
};
use crate::compile::sender::{SENDER, gives_up};
use crate::policy::Action;

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make the table, which anybody with the permission may change.
    AddTable,
    /// Make the table as the socket's own: it stays when the socket closes, and until then nobody else may change it.
    AddOwnedTable,
    /// Make a table that was left by its owner the socket's own.
    AdoptTable,
    /// Remove the table with all that is in it.
    DeleteTable,
    /// Make a chain, or set an existing base chain's policy.
    AddChain {
        /// Its name.
        chain: String,
        /// Where it is hooked.
        base: Option<Base>,
    },
    /// Remove an empty chain nobody leads to.
    DeleteChain {
        /// Its name.
        chain: String,
    },
    /// Remove all rules of a chain.
    FlushChain {
        /// Its name.
        chain: String,
    },
    /// Append a rule.
    AddRule {
        /// Its chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// Make a helper.
    AddHelper {
        /// Its name.
        name: String,
        /// What it is.
        helper: CtHelper,
    },
    /// Remove a helper no rule uses.
    DeleteHelper {
        /// Its name.
        name: String,
    },
    /// Make a set with nothing in it.
    AddSet {
        /// Its name.
        name: String,
        /// The set; elements are added by operations of their own.
        set: Set,
    },
    /// Remove a set no rule uses.
    DeleteSet {
        /// Its name.
        name: String,
    },
    /// Add elements.
    AddElements {
        /// The set's name.
        name: String,
        /// A set of the same type, holding the elements to add.
        set: Set,
    },
    /// Remove elements.
    DeleteElements {
        /// The set's name.
        name: String,
        /// A set of the same type, holding the elements to remove.
        set: Set,
    },
}

/// What is to be done to one netns' table, in order, and what it holds afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Which table.
    pub family: TableFamily,
    /// The changes.
    pub ops: Vec<Op>,
    /// The table's content once they are done; `None` when it is removed.
    pub target: Option<Ruleset>,
    /// Whether something that was allowed no longer is: every connection is judged again.
    pub revokes: bool,
    /// What is done to another table of the netns in the same batch.
    pub with: Option<Box<Transaction>>,
}

impl Transaction {
    /// The same, together with what is to be done to another table.
    pub fn with(self, other: Transaction) -> Self {
        Self { with: Some(Box::new(other)), ..self }
    }

    /// Every operation in order, with its table.
    pub fn operations(&self) -> impl Iterator<Item = (TableFamily, &Op)> {
        std::iter::once(self)
            .chain(self.with.as_deref())
            .flat_map(|transaction| transaction.ops.iter().map(|op| (transaction.family, op)))
    }

    /// Every operation in words.
    pub fn described(&self) -> impl Iterator<Item = String> {
        self.described_within(usize::MAX)
    }

    /// The same, cut where an operation's words would be longer than so many bytes.
    pub fn described_within(&self, longest: usize) -> impl Iterator<Item = String> {
        self.operations().map(move |(family, op)| {
            let mut brief = Brief { text: String::new(), longest };
            let written = match family {
                TableFamily::Inet => write!(brief, "{op}"),
                other => write!(brief, "{other}: {op}"),
            };
            // An error says that there is more.
            brief.text + if written.is_err() { "…" } else { "" }
        })
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations().next().is_none()
    }

    /// Whether only elements of existing sets change.
    pub fn is_elements_only(&self) -> bool {
        self.operations()
            .all(|(_, op)| matches!(op, Op::AddElements { .. } | Op::DeleteElements { .. }))
    }
}

/// Takes what is written to it until it is full.
struct Brief {
    text: String,
    longest: usize,
}

impl fmt::Write for Brief {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() > self.longest {
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

/// Plans from `actual` (`None`: there is no table) to `wanted` (`None`: there shall be none).
///
/// The generation of `wanted` is that of a table that is made. One that is there keeps its own, and takes the next one when
/// something is revoked.
pub fn plan(actual: Option<&Ruleset>, wanted: Option<&Ruleset>) -> Transaction {
    plan_as(actual, wanted, Claim::default())
}

/// The same, and says whose the table shall be.
pub fn plan_as(actual: Option<&Ruleset>, wanted: Option<&Ruleset>, claim: Claim) -> Transaction {
    let family = wanted.or(actual).map_or(TableFamily::Inet, |ruleset| ruleset.family);
    let empty = || Ruleset::empty(family);
    let add = if claim.is_owned { Op::AddOwnedTable } else { Op::AddTable };
    let (ops, target, revokes) = match (actual, wanted) {
        (None, None) => (Vec::new(), None, false),
        (Some(_), None) => (vec![Op::DeleteTable], None, false),
        (None, Some(wanted)) => {
            let target = wanted.clone();
            let mut ops = vec![add];
            ops.extend(changes(&empty(), &target));
            (ops, Some(target), false)
        }
        (Some(actual), Some(wanted)) => {
            let revokes = is_revoking(actual, wanted);
            let target = wanted.clone().at_generation(generation(actual, revokes));
            let how = match needs_rebuild(actual, &target) {
                true => Present::Remade,
                false => claim.present,
            };
            let ops = match how {
                Present::Remade => {
                    let mut ops = vec![Op::DeleteTable, add];
                    ops.extend(changes(&empty(), &target));
                    ops
                }
                // First: an operation on a table that is not ours yet would be made on somebody else's.
                Present::Adopted => {
                    let mut ops = vec![Op::AdoptTable];
                    ops.extend(changes(actual, &target));
                    ops
                }
                Present::Kept => changes(actual, &target),
            };
            (ops, Some(target), revokes)
        }
    };
    Transaction { family, ops, target, revokes, with: None }
}

/// Plans what leads to `wanted` from anything: where somebody changes the ruleset faster than it can be read and planned
/// for, nothing else comes through. Every connection is judged again.
///
/// `before` is the last generation that is known to have been in force; without one that of `wanted` is taken.
pub fn plan_anew(
    family: TableFamily,
    wanted: Option<&Ruleset>,
    before: Option<Generation>,
    claim: Claim,
) -> Transaction {
    let add = if claim.is_owned { Op::AddOwnedTable } else { Op::AddTable };
    let target = wanted.cloned().map(|wanted| match before {
        Some(before) => wanted.at_generation(before.next()),
        None => wanted,
    });
    // Made first, where it is not there: only what is there can be deleted.
    let mut ops = vec![Op::AddTable, Op::DeleteTable];
    if let Some(target) = &target {
        ops.push(add);
        ops.extend(changes(&Ruleset::empty(family), target));
    }
    Transaction { family, ops, target, revokes: true, with: None }
}

/// The generation to write: the kernel's own, or one that no rule in the kernel accepts.
fn generation(actual: &Ruleset, revokes: bool) -> Generation {
    match actual.generation() {
        Some(generation) if revokes => generation.next(),
        Some(generation) => generation,
        None => {
            let present = actual.statements().filter_map(|statement| match statement {
                Stmt::GenerationIs(generation) | Stmt::SetGeneration(generation) => {
                    Some(*generation)
                }
                _ => None,
            });
            present.max().map_or(Generation::FIRST, Generation::next)
        }
    }
}

/// The chains every netns has alike but for its mode.
const FIXED: [&str; 10] = [
    "fast",
    "loopback",
    "allow",
    "ingress",
    "egress",
    "transit",
    "errors",
    "essentials_in",
    "essentials_out",
    SENDER,
];

/// Whether a connection allowed by `actual` might not be allowed by `wanted`.
fn is_revoking(actual: &Ruleset, wanted: &Ruleset) -> bool {
    if wanted.family != TableFamily::Inet {
        // It judges every packet anew.
        return false;
    }
    let keeps_all = |action: Action, from: &Ruleset, to: &Ruleset| {
        let of = |ruleset| roles(ruleset).filter(move |(role, _)| role.action == action);
        of(from).all(|(role, set)| {
            let others: Vec<&Set> =
                of(to).filter(|(other, _)| *other == role).map(|(_, other)| other).collect();
            let holds =
                |other: &&&Set, element, comment| other.elements.get(element) == Some(comment);
            others.iter().any(|other| other.elements == set.elements)
                || set.elements.iter().all(|(element, comment)| {
                    others.iter().any(|other| holds(&other, element, comment))
                })
        })
    };
    let helped = |ruleset: &Ruleset| -> BTreeSet<(HelperRole, Element)> {
        let sets = ruleset.sets.iter().filter_map(|(name, set)| Some((HelperRole::of(name)?, set)));
        sets.flat_map(|(role, set)| set.elements.keys().map(move |e| (role, *e))).collect()
    };
    // The chains that do not follow from what sets there are, whatever the generation: where they change, what they
    // accepted may not be accepted now.
    let is_fixed = |name: &str| match (actual.chains.get(name), wanted.chains.get(name)) {
        (Some(actual), Some(wanted)) => is_same_but_for_generation(actual, wanted),
        (actual, wanted) => actual.is_none() && wanted.is_none(),
    };
    !keeps_all(Action::Allow, actual, wanted)
        || !keeps_all(Action::Deny, wanted, actual)
        || gives_up(actual, wanted)
        || !helped(actual).is_subset(&helped(wanted))
        || !FIXED.into_iter().all(is_fixed)
        || actual.generation().is_none()
}

/// The sets that hold statements' elements.
fn roles(ruleset: &Ruleset) -> impl Iterator<Item = (Role, &Set)> {
    ruleset.sets.iter().filter_map(|(name, set)| Some((Role::of(name)?, set)))
}

fn is_same_but_for_generation(left: &Chain, right: &Chain) -> bool {
    let is_same = |(left, right): (&Stmt, &Stmt)| match (left, right) {
        (Stmt::GenerationIs(_), Stmt::GenerationIs(_))
        | (Stmt::SetGeneration(_), Stmt::SetGeneration(_)) => true,
        (left, right) => left == right,
    };
    let is_same_rule = |(left, right): (&Rule, &Rule)| {
        left.comment == right.comment
            && left.statements.len() == right.statements.len()
            && left.statements.iter().zip(&right.statements).all(is_same)
    };
    left == right
        || left.base == right.base
            && left.rules.len() == right.rules.len()
            && left.rules.iter().zip(right.rules.iter()).all(is_same_rule)
}

/// Whether something stands under a name of ours that cannot be changed in place.
fn needs_rebuild(actual: &Ruleset, target: &Ruleset) -> bool {
    let hook = |chain: &Chain| {
        chain.base.as_ref().map(|base| (base.hook, base.device.clone(), base.priority))
    };
    let other_chain = target.chains.iter().any(|(name, chain)| {
        actual.chains.get(name).is_some_and(|present| hook(present) != hook(chain))
    });
    let other_set = target.sets.iter().any(|(name, set)| {
        actual.sets.get(name).is_some_and(|present| !is_same_type(present, set))
    });
    let other_helper = target
        .helpers
        .iter()
        .any(|(name, helper)| actual.helpers.get(name).is_some_and(|present| present != helper));
    other_chain || other_set || other_helper
}

fn is_same_type(left: &Set, right: &Set) -> bool {
    (left.family, left.kind, left.interval, &left.comment)
        == (right.family, right.kind, right.interval, &right.comment)
}

fn changes(actual: &Ruleset, target: &Ruleset) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut removed = Vec::new();
    let new = target.helpers.iter().filter(|(name, _)| !actual.helpers.contains_key(*name));
    ops.extend(new.map(|(name, helper)| {
        let (name, helper) = (name.clone(), helper.clone());
        Op::AddHelper { name, helper }
    }));
    for (name, set) in &target.sets {
        let present = actual.sets.get(name);
        if present.is_none() {
            ops.push(Op::AddSet { name: name.clone(), set: without_elements(set) });
        }
        let old = present.map(|present| &present.elements);
        if old == Some(&set.elements) {
            continue;
        }
        let stale = |(e, c): &(&Element, &Comment)| set.elements.get(*e) != Some(*c);
        let gone = with_elements(set, old.into_iter().flat_map(|old| old.iter()).filter(stale));
        let is_new = |(e, c): &(&Element, &Comment)| old.and_then(|old| old.get(*e)) != Some(*c);
        let new = with_elements(set, set.elements.iter().filter(is_new));
        // An element whose meaning changes is removed before it is added again.
        if !gone.elements.is_empty() {
            ops.push(Op::DeleteElements { name: name.clone(), set: gone });
        }
        if !new.elements.is_empty() {
            ops.push(Op::AddElements { name: name.clone(), set: new });
        }
    }
    for (name, chain) in &target.chains {
        if actual.chains.get(name).map(|present| &present.base) != Some(&chain.base) {
            ops.push(Op::AddChain { chain: name.clone(), base: chain.base.clone() });
        }
    }
    for (name, chain) in &target.chains {
        let present = actual.chains.get(name).map(|present| &present.rules);
        let is_empty = present.is_none_or(|rules| rules.is_empty());
        if present == Some(&chain.rules) || is_empty && chain.rules.is_empty() {
            continue;
        }
        if !is_empty {
            ops.push(Op::FlushChain { chain: name.clone() });
        }
        ops.extend(
            chain.rules.iter().map(|rule| Op::AddRule { chain: name.clone(), rule: rule.clone() }),
        );
    }
    for (name, chain) in &actual.chains {
        if !target.chains.contains_key(name) {
            if !chain.rules.is_empty() {
                ops.push(Op::FlushChain { chain: name.clone() });
            }
            removed.push(Op::DeleteChain { chain: name.clone() });
        }
    }
    let stale_sets = actual.sets.keys().filter(|name| !target.sets.contains_key(*name));
    removed.extend(stale_sets.map(|name| Op::DeleteSet { name: name.clone() }));
    let stale_helpers = actual.helpers.keys().filter(|name| !target.helpers.contains_key(*name));
    removed.extend(stale_helpers.map(|name| Op::DeleteHelper { name: name.clone() }));
    ops.append(&mut removed);
    ops
}

fn without_elements(set: &Set) -> Set {
    Set { elements: Arc::default(), ..set.clone() }
}

fn with_elements<'a>(set: &Set, elements: impl Iterator<Item = (&'a Element, &'a Comment)>) -> Set {
    let elements: BTreeMap<_, _> =
        elements.map(|(element, comment)| (*element, comment.clone())).collect();
    Set {
        family: set.family,
        kind: set.kind,
        interval: set.interval,
        comment: set.comment.clone(),
        elements: elements.into(),
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One by one: whoever wants no more gets no more.
        let list = |f: &mut fmt::Formatter<'_>, set: &Set| {
            for (at, (element, comment)) in set.elements.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                write!(f, "{comma}{}", render::element_text(set, element, comment))?;
            }
            f.write_str(" }")
        };
        match self {
            Self::AddTable => f.write_str("add table"),
            Self::AddOwnedTable => f.write_str("add table, owned"),
            Self::AdoptTable => f.write_str("adopt table"),
            Self::DeleteTable => f.write_str("delete table"),
            Self::AddChain { chain, .. } => write!(f, "add chain {}", name(chain)),
            Self::DeleteChain { chain } => write!(f, "delete chain {}", name(chain)),
            Self::FlushChain { chain } => write!(f, "flush chain {}", name(chain)),
            Self::AddRule { chain, rule } => {
                write!(f, "add rule {} {}", name(chain), render::rule_text(rule))
            }
            Self::AddHelper { name: called, helper } => {
                write!(f, "add ct helper {} ({})", name(called), name(&helper.kind))
            }
            Self::DeleteHelper { name: called } => write!(f, "delete ct helper {}", name(called)),
            Self::AddSet { name: called, .. } => write!(f, "add set {}", name(called)),
            Self::DeleteSet { name: called } => write!(f, "delete set {}", name(called)),
            Self::AddElements { name: called, set } => {
                write!(f, "add element {} {{ ", name(called))?;
                list(f, set)
            }
            Self::DeleteElements { name: called, set } => {
                write!(f, "delete element {} {{ ", name(called))?;
                list(f, set)
            }
        }
    }
}
