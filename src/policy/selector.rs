//! Owns selectors: how operators say which workloads, or which other party, a statement is about.
//!
//! A selector is either one *entity* standing alone (`host`, `world`, `internet`, `dns`, `self`, `any`, `cidr:10.0.0.0/8`), or
//! *terms* separated by blanks that must all match (`project:shop service:api`). A `*` in a term's value stands for
//! any characters, none included.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use crate::input::Text;
use crate::input::toml_doc::nearest;
use crate::metadata::{Attachment, ImageRef, NetworkKey, Workload};
use crate::model::{Catalogue, Model};

/// Which workloads, or which other party, is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Workloads that match every term; with no term, every workload (`any`).
    Workloads(Vec<Term>),
    /// The replicas of the service at the statement's other end.
    Replicas,
    /// The host.
    Host,
    /// Any address.
    World,
    /// Any globally routed address.
    Internet,
    /// The workload's resolvers.
    Dns,
    /// A range of addresses, host bits clear.
    Cidr(IpNetwork),
}

/// One thing asked of a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// `name:` the container's name.
    Name(Glob),
    /// `image:` the image, as `[registry/]repository`, alone or with `:tag` or `@digest`. Without a registry
    /// Docker Hub is meant; `*/db` is `db` in any registry or path.
    Image(Glob),
    /// `model:` the model; `model:unknown` is every workload no model fits.
    Model(Glob),
    /// `category:` the model's category.
    Category(Glob),
    /// `project:` the project's name, of whatever kind.
    Project(Glob),
    /// `service:` the service's or pod's name.
    Service(Glob),
    /// `label:key=value` or `label:key`: a container label.
    Label(Text, Option<Glob>),
    /// `tag:` one of the workload's `seawall.tag`s.
    Tag(Glob),
    /// `network:` the name of a network it is attached to.
    Network(Glob),
}

/// A pattern in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob(Text);

/// What a selector is held against.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// The networks of its netns (another workload's, when it lives in that one's netns).
    pub networks: &'a BTreeMap<NetworkKey, Attachment>,
    /// Its model.
    pub model: Option<&'a Model>,
    /// Its tags, as far as labels are trusted.
    pub tags: &'a BTreeSet<Text>,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing is written.
    #[error("a selector is empty; write `any` for every workload")]
    Empty,
    /// Neither a term nor an entity.
    #[error("`{0}` is no selector term")]
    UnknownTerm(Text),
    /// A term without a value.
    #[error("`{0}` needs a value after the colon")]
    NoValue(Text),
    /// An entity together with something else.
    #[error("`{0}` must stand alone in its selector; use a list to name several parties")]
    NotAlone(Text),
    /// No range of addresses.
    #[error("`{0}` is not a range of addresses such as 10.0.0.0/8 or 2001:db8::/32")]
    BadCidr(Text),
    /// Bits set past the prefix.
    #[error("`{given}` has bits set beyond its prefix")]
    HostBits {
        /// As written.
        given: Text,
        /// The range it lies in.
        canonical: IpNetwork,
    },
}

impl SelectorError {
    /// The stable code of this problem.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadCidr(_) | Self::HostBits { .. } => "policy/bad-cidr",
            _ => "policy/bad-selector",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::UnknownTerm(word) => {
                let key = word.as_str().split(':').next().unwrap_or_default();
                let known = TERMS.iter().chain(&ENTITIES).copied();
                Some(nearest(key, known).map_or_else(
                    || format!("terms: {}: … entities: {}", TERMS.join(": "), ENTITIES.join(" ")),
                    |near| {
                        let colon =
                            if ENTITIES.contains(&near) && near != "cidr" { "" } else { ":" };
                        format!("did you mean `{near}{colon}`?")
                    },
                ))
            }
            Self::HostBits { canonical, given } => Some(format!(
                "write `cidr:{canonical}` for the range, or `cidr:{}` for the one address",
                given.as_str().split('/').next().unwrap_or_default()
            )),
            _ => None,
        }
    }
}

const TERMS: [&str; 9] =
    ["name", "image", "model", "category", "project", "service", "label", "tag", "network"];
const ENTITIES: [&str; 7] = ["host", "world", "internet", "dns", "self", "any", "cidr"];

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_entity =
            |word: &&&str| ENTITIES.contains(&word.split(':').next().unwrap_or_default());
        match words.as_slice() {
            [] => Err(SelectorError::Empty),
            [word] if is_entity(&word) => entity(word),
            words => match words.iter().find(is_entity) {
                Some(word) => Err(SelectorError::NotAlone(Text::new(word))),
                None => words
                    .iter()
                    .map(|word| term(word))
                    .collect::<Result<_, _>>()
                    .map(Self::Workloads),
            },
        }
    }
}

fn entity(word: &str) -> Result<Selector, SelectorError> {
    match word {
        "host" => Ok(Selector::Host),
        "world" => Ok(Selector::World),
        "internet" => Ok(Selector::Internet),
        "dns" => Ok(Selector::Dns),
        "self" => Ok(Selector::Replicas),
        "any" => Ok(Selector::Workloads(Vec::new())),
        _ => match word.strip_prefix("cidr:") {
            Some(range) => parse_cidr(range).map(Selector::Cidr),
            None => Err(SelectorError::UnknownTerm(Text::new(word))),
        },
    }
}

/// A range of addresses whose host bits are clear; a bare address is a range of one.
pub(super) fn parse_cidr(text: &str) -> Result<IpNetwork, SelectorError> {
    let bad = || SelectorError::BadCidr(Text::new(text));
    let network: IpNetwork = text.parse().map_err(|_| bad())?;
    if let IpNetwork::V6(v6) = network
        && v6.ip().to_ipv4_mapped().is_some()
    {
        return Err(bad()); // such addresses never appear in IPv6 packets
    }
    let canonical = IpNetwork::new(network.network(), network.prefix()).map_err(|_| bad())?;
    if canonical == network {
        Ok(network)
    } else {
        Err(SelectorError::HostBits { given: Text::new(text), canonical })
    }
}

fn term(word: &str) -> Result<Term, SelectorError> {
    let unknown = || SelectorError::UnknownTerm(Text::new(word));
    let (key, value) = word.split_once(':').ok_or_else(unknown)?;
    if !TERMS.contains(&key) {
        return Err(unknown());
    }
    if value.is_empty() || value.starts_with('=') {
        return Err(SelectorError::NoValue(Text::new(word)));
    }
    let glob = || Glob(Text::new(value));
    Ok(match key {
        "name" => Term::Name(glob()),
        "image" => Term::Image(glob()),
        "model" => Term::Model(glob()),
        "category" => Term::Category(glob()),
        "project" => Term::Project(glob()),
        "service" => Term::Service(glob()),
        "tag" => Term::Tag(glob()),
        "network" => Term::Network(glob()),
        _ => match value.split_once('=') {
            Some((key, value)) => Term::Label(Text::new(key), Some(Glob(Text::new(value)))),
            None => Term::Label(Text::new(value), None),
        },
    })
}

impl Selector {
    /// Whether this names a workload: entities never do, and `self` only together with the other end. A label that may
    /// have come with the image does not count: an image must not choose what it is allowed (security model 7).
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.is_met(subject, |key| subject.workload.operator_label(key))
    }

    /// The same for what takes away. Here any label counts: with the operator's own label in it, an image must not get
    /// out of what that label denies it.
    pub fn may_match(&self, subject: &Subject<'_>) -> bool {
        self.is_met(subject, |key| subject.workload.label(key))
    }

    fn is_met<'t>(&self, subject: &Subject<'_>, label: impl Fn(&str) -> Option<&'t Text>) -> bool {
        match self {
            Self::Workloads(terms) => terms.iter().all(|term| term.matches(subject, &label)),
            _ => false,
        }
    }

    /// Whether workloads are meant (`self` included) and not an entity.
    pub fn is_workloads(&self) -> bool {
        matches!(self, Self::Workloads(_) | Self::Replicas)
    }

    /// The terms; none for entities.
    pub fn terms(&self) -> &[Term] {
        match self {
            Self::Workloads(terms) => terms,
            _ => &[],
        }
    }
}

impl Term {
    fn matches<'t>(
        &self,
        subject: &Subject<'_>,
        label: &impl Fn(&str) -> Option<&'t Text>,
    ) -> bool {
        let workload = subject.workload;
        match self {
            Self::Name(glob) => glob.matches(workload.name.as_str()),
            Self::Image(glob) => {
                workload.image.reference.as_ref().is_some_and(|image| matches_image(glob, image))
            }
            Self::Model(glob) => match subject.model {
                Some(model) => glob.matches(model.name.as_str()),
                None => glob.0 == "unknown",
            },
            Self::Category(glob) => {
                subject.model.is_some_and(|model| glob.matches(model.category.as_str()))
            }
            Self::Project(glob) => {
                workload.project.as_ref().is_some_and(|project| glob.matches(project.name.as_str()))
            }
            // `service:shop/db` names the project as well; no service has a slash in its name.
            Self::Service(glob) if glob.0.as_str().contains('/') => {
                workload.service.is_some() && glob.matches(workload.display_name().as_str())
            }
            Self::Service(glob) => {
                workload.service.as_ref().is_some_and(|service| glob.matches(service.as_str()))
            }
            Self::Label(key, value) => label(key.as_str()).is_some_and(|found| {
                value.as_ref().is_none_or(|glob| glob.matches(found.as_str()))
            }),
            Self::Tag(glob) => subject.tags.iter().any(|tag| glob.matches(tag.as_str())),
            Self::Network(glob) => {
                subject.networks.values().any(|network| glob.matches(network.name.as_str()))
            }
        }
    }

    /// Whether the answer can be known before it is known which model a workload is and which labels are trusted.
    pub fn is_answered_by_facts(&self) -> bool {
        !matches!(self, Self::Model(_) | Self::Category(_) | Self::Tag(_))
    }

    /// The name of a model or category this asks for and the catalogue does not have.
    pub(super) fn unknown_name<'a>(&'a self, catalogue: &'a Catalogue) -> Option<UnknownName<'a>> {
        let (kind, glob, known): (_, _, BTreeSet<&str>) = match self {
            Self::Model(glob) if glob.0 != "unknown" => {
                ("model", glob, catalogue.models.keys().map(|name| name.as_str()).collect())
            }
            Self::Category(glob) => (
                "category",
                glob,
                catalogue.models.values().map(|model| model.category.as_str()).collect(),
            ),
            _ => return None,
        };
        (!known.iter().any(|name| glob.matches(name))).then(|| UnknownName {
            kind,
            name: &glob.0,
            near: nearest(glob.0.as_str(), known.into_iter()),
        })
    }
}

/// A name the catalogue does not have.
pub(super) struct UnknownName<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a Text,
    pub(super) near: Option<&'a str>,
}

fn matches_image(glob: &Glob, image: &ImageRef) -> bool {
    let name = match &image.registry {
        Some(registry) => format!("{registry}/{}", image.repository),
        None => image.repository.clone(),
    };
    let tagged = image.tag.as_ref().map(|tag| format!("{name}:{tag}"));
    let pinned = image.digest.as_ref().map(|digest| format!("{name}@{digest}"));
    [Some(name), tagged, pinned, Some(image.to_string())]
        .iter()
        .flatten()
        .any(|candidate| glob.matches(candidate))
}

impl Glob {
    /// Whether the whole of `text` fits the pattern. Linear for each `*`, whatever the input.
    pub fn matches(&self, text: &str) -> bool {
        let pattern = self.0.as_str();
        let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == text };
        let Some(mut text) = text.strip_prefix(prefix) else { return false };
        let mut pieces: Vec<&str> = rest.split('*').collect();
        let suffix = pieces.pop().unwrap_or_default();
        for piece in pieces {
            match text.find(piece) {
                Some(at) => text = &text[at + piece.len()..],
                None => return false,
            }
        }
        text.ends_with(suffix)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The narrowest selector text for one workload: its service where it has one, else its name.
pub fn selector_for(workload: &Workload) -> String {
    // A selector cannot hold blanks; a pattern that also fits is the best that can be offered.
    let value = |text: &Text| text.as_str().split_whitespace().collect::<Vec<_>>().join("*");
    match (&workload.project, &workload.service) {
        (Some(project), Some(service)) => {
            format!("project:{} service:{}", value(&project.name), value(service))
        }
        _ => format!("name:{}", value(&workload.name)),
    }
}

#[cfg(test)]
mod tests;
