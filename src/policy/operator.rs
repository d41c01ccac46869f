//! Owns operators' files (`policy.d/*.toml`): reading `[[allow]]`, `[[deny]]`, `[[mode]]` and `[[model]]`, with all problems at once.
//!
//! ```toml
//! [[allow]]                                       # [[deny]] is written the same; deny beats allow
//! from    = "project:shop service:api"            # a selector, or a list of which any may match
//! to      = ["name:legacy-db", "cidr:10.20.0.0/16"]
//! ports   = ["postgresql", "8000-8100/tcp", "ping"]   # absent: every port of tcp, udp and sctp, and ping
//! helper  = "ftp"                                 # finds data connections; a service brings its own
//! comment = "nightly import"                      # for people
//!
//! [[mode]]                                        # of several that match, the last one counts
//! select = "project:shop"
//! mode   = "enforce"
//!
//! [[model]]                                       # of several that match, the last one counts
//! select = "image:registry.local/team/db"
//! model  = "postgres"
//! ```

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::helped::{self, Helped};
use super::selector::{Selector, Subject};
use super::settings::Mode;
use super::statement::{Action, Traffic};
use super::traffic::{everything, merged};
use crate::input::diagnostic::SourceFile;
use crate::input::toml_doc::{Document, Located, Section, nearest};
use crate::input::{Diagnostic, Diagnostics, Place, Text};
use crate::metadata::{Ports, Workload};
use crate::model::{Catalogue, ModelName, Provided};

/// Everything operators state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorPolicy {
    /// Allows and denies. Their order means nothing.
    pub statements: Vec<OperatorStatement>,
    /// Modes, in the files' order.
    pub modes: Vec<ModeRule>,
    /// Models, in the files' order.
    pub models: Vec<ModelRule>,
}

/// One `[[allow]]` or `[[deny]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorStatement {
    /// Allow or deny.
    pub action: Action,
    /// Who connects: any of these.
    pub from: Vec<Selector>,
    /// Who is connected to: any of these.
    pub to: Vec<Selector>,
    /// What is carried; never empty.
    pub traffic: BTreeSet<Traffic>,
    /// Why, in the operator's words.
    pub comment: Option<Text>,
    /// Where it is written.
    pub place: Place,
}

/// One `[[mode]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeRule {
    /// Which workloads: any of these.
    pub select: Vec<Selector>,
    /// Their mode.
    pub mode: Mode,
    /// Where it is written.
    pub place: Place,
}

/// One `[[model]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRule {
    /// Which workloads: any of these. Only terms that facts answer.
    pub select: Vec<Selector>,
    /// What they are.
    pub model: ModelName,
    /// Where it is written.
    pub place: Place,
}

impl OperatorPolicy {
    /// The mode operators state for a workload; the last match counts.
    pub fn mode(&self, subject: &Subject<'_>) -> Option<&ModeRule> {
        self.modes.iter().rfind(|rule| {
            rule.select.iter().any(|selector| match rule.mode {
                Mode::Enforce => selector.may_match(subject),
                Mode::Off | Mode::Observe => selector.matches(subject),
            })
        })
    }

    /// The model operators state for a workload, and where; the last match counts.
    /// It is known before resolution, from the workload's own facts alone.
    pub fn model_override(&self, workload: &Workload) -> Option<(ModelName, Place)> {
        let subject =
            Subject { workload, networks: &workload.networks, model: None, tags: &BTreeSet::new() };
        self.models
            .iter()
            .rfind(|rule| rule.select.iter().any(|selector| selector.matches(&subject)))
            .map(|rule| (rule.model.clone(), rule.place.clone()))
    }
}

/// Reads operators' files in the order given. Names of services, models and categories must be in the catalogue.
pub fn parse(
    files: &[SourceFile<'_>],
    catalogue: &Catalogue,
) -> Result<OperatorPolicy, Diagnostics> {
    let mut reader = Reader { catalogue: Some(catalogue), ..Reader::default() };
    files.iter().for_each(|file| reader.file(*file));
    reader.problems.into_result(reader.policy)
}

/// The problems that can be found without a catalogue (because it has problems of its own).
pub fn check_without_catalogue(files: &[SourceFile<'_>]) -> Diagnostics {
    let mut reader = Reader::default();
    files.iter().for_each(|file| reader.file(*file));
    reader.problems
}

#[derive(Default)]
struct Reader<'c> {
    catalogue: Option<&'c Catalogue>,
    policy: OperatorPolicy,
    problems: Diagnostics,
}

/// A selector and where it is written.
type Selectors = Vec<Located<Selector>>;

impl Reader<'_> {
    fn file(&mut self, file: SourceFile<'_>) {
        let document = Document::parse(file, &mut self.problems);
        let root = document.root();
        for (action, key) in [(Action::Allow, "allow"), (Action::Deny, "deny")] {
            for section in root.sections(key, &mut self.problems) {
                if let Some(statement) = self.statement(action, &section) {
                    self.policy.statements.push(statement);
                }
                section.finish(&mut self.problems);
            }
        }
        for section in root.sections("mode", &mut self.problems) {
            if let Some(rule) = self.mode(&section) {
                self.policy.modes.push(rule);
            }
            section.finish(&mut self.problems);
        }
        for section in root.sections("model", &mut self.problems) {
            if let Some(rule) = self.model(&section) {
                self.policy.models.push(rule);
            }
            section.finish(&mut self.problems);
        }
        root.finish(&mut self.problems);
    }

    fn statement(&mut self, action: Action, section: &Section<'_>) -> Option<OperatorStatement> {
        let from = self.selectors(section, "from", "policy/missing-from");
        let to = self.selectors(section, "to", "policy/missing-to");
        let helped = helped::read(action, section, &mut self.problems);
        let traffic = self.traffic(section, helped.unwrap_or(Helped::none(action)));
        let comment = section.string("comment", &mut self.problems);
        let (from, to) = (from?, to?);
        self.ends(section, &from, &to);
        helped?;
        let plain = |list: Selectors| list.into_iter().map(|selector| selector.value).collect();
        Some(OperatorStatement {
            action,
            from: plain(from),
            to: plain(to),
            traffic: traffic?,
            comment: comment.map(|comment| Text::new(comment.value)),
            place: section.file().place(&section.span()),
        })
    }

    fn mode(&mut self, section: &Section<'_>) -> Option<ModeRule> {
        let select = self.workload_selectors(section);
        let mode = self.required(section, "mode", "policy/missing-mode");
        let mode = mode.and_then(|mode| match mode.value {
            "off" => Some(Mode::Off),
            "observe" => Some(Mode::Observe),
            "enforce" => Some(Mode::Enforce),
            other => {
                let message = format!("`{}` is no mode", Text::new(other));
                let problem = section.file().problem(&mode.span, "policy/bad-mode", message);
                self.problems.push(problem.with_help("use off, observe or enforce"));
                None
            }
        });
        Some(ModeRule {
            select: select?,
            mode: mode?,
            place: section.file().place(&section.span()),
        })
    }

    fn model(&mut self, section: &Section<'_>) -> Option<ModelRule> {
        let select = self.workload_selectors(section);
        let model = self.required(section, "model", "policy/missing-model");
        let model = model.and_then(|model| self.model_name(section.file(), &model));
        let key =
            |selector: &Selector| selector.terms().iter().all(|term| term.is_answered_by_facts());
        if let Some(selectors) = &select
            && !selectors.iter().all(key)
        {
            let message =
                "which model a workload is cannot depend on `model:`, `category:` or `tag:`";
            let problem = section.file().problem(&section.span(), "policy/bad-selector", message);
            self.problems
                .push(problem.with_help("use name: image: project: service: label: or network:"));
        }
        Some(ModelRule {
            select: select?,
            model: model?,
            place: section.file().place(&section.span()),
        })
    }

    fn model_name(&mut self, file: SourceFile<'_>, given: &Located<&str>) -> Option<ModelName> {
        let name = ModelName::new(given.value);
        let Some(catalogue) = self.catalogue else { return name };
        let known = name.filter(|name| catalogue.models.contains_key(name));
        if known.is_none() {
            let names = catalogue.models.keys().map(|name| name.as_str());
            let near = nearest(given.value, names);
            self.unknown(file, given, "policy/unknown-model", "model", near);
        }
        known
    }

    fn unknown(
        &mut self,
        file: SourceFile<'_>,
        given: &Located<&str>,
        code: &'static str,
        kind: &str,
        near: Option<&str>,
    ) {
        let message = format!("the catalogue has no {kind} `{}`", Text::new(given.value));
        let problem = file.problem(&given.span, code, message);
        self.problems.push(match near {
            Some(near) => problem.with_help(format!("did you mean `{near}`?")),
            None => problem,
        });
    }

    /// A string that must be there.
    fn required<'d>(
        &mut self,
        section: &Section<'d>,
        key: &'static str,
        code: &'static str,
    ) -> Option<Located<&'d str>> {
        let found = section.string(key, &mut self.problems);
        if !section.has(key) {
            let message = format!("`{key}` is missing");
            self.problems.push(section.file().problem(&section.span(), code, message));
        }
        found
    }

    /// Selectors that must be there; `None` when any of them has a problem.
    fn selectors(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        code: &'static str,
    ) -> Option<Selectors> {
        let found = section.strings(key, &mut self.problems);
        if !section.has(key) || found.as_ref().is_some_and(Vec::is_empty) {
            let message = format!("`{key}` is missing or empty");
            let problem = section.file().problem(&section.span(), code, message);
            self.problems.push(
                problem.with_help("write `any` for every workload, `world` for every address"),
            );
            return None;
        }
        let found = found?;
        let selectors: Selectors =
            found.iter().filter_map(|text| self.selector(section.file(), text)).collect();
        self.overlaps(section, &selectors);
        (selectors.len() == found.len()).then_some(selectors)
    }

    fn selector(
        &mut self,
        file: SourceFile<'_>,
        text: &Located<&str>,
    ) -> Option<Located<Selector>> {
        let selector = match text.value.parse::<Selector>() {
            Ok(selector) => selector,
            Err(error) => {
                let problem = file.problem(&text.span, error.code(), error.to_string());
                self.problems.push(match error.help() {
                    Some(help) => problem.with_help(help),
                    None => problem,
                });
                return None;
            }
        };
        let unknown = self.catalogue.into_iter().flat_map(|catalogue| {
            selector.terms().iter().filter_map(move |term| term.unknown_name(catalogue))
        });
        for name in unknown.collect::<Vec<_>>() {
            let code = match name.kind {
                "model" => "policy/unknown-model",
                _ => "policy/unknown-category",
            };
            let given = Located { value: name.name.as_str(), span: text.span.clone() };
            self.unknown(file, &given, code, name.kind, name.near);
        }
        Some(Located { value: selector, span: text.span.clone() })
    }

    /// `select`: workloads only.
    fn workload_selectors(&mut self, section: &Section<'_>) -> Option<Vec<Selector>> {
        let selectors = self.selectors(section, "select", "policy/missing-select")?;
        let entities: Vec<_> = selectors
            .iter()
            .filter(|selector| !matches!(selector.value, Selector::Workloads(_)))
            .collect();
        for entity in &entities {
            let message = "`select` chooses workloads; this is none";
            self.problems.push(section.file().problem(
                &entity.span,
                "policy/bad-selector",
                message,
            ));
        }
        entities.is_empty().then(|| selectors.into_iter().map(|selector| selector.value).collect())
    }

    /// What two ends cannot be.
    fn ends(&mut self, section: &Section<'_>, from: &Selectors, to: &Selectors) {
        let file = section.file();
        for dns in from.iter().filter(|selector| selector.value == Selector::Dns) {
            let message = "resolvers are connected to, they never connect";
            let problem = file.problem(&dns.span, "policy/bad-selector", message);
            self.problems.push(problem.with_help("write `dns` in `to`"));
        }
        let has_workloads =
            |list: &Selectors| list.iter().any(|selector| selector.value.is_workloads());
        if !has_workloads(from) && !has_workloads(to) {
            let message = "neither end is a workload, so this statement does nothing";
            let problem = file.problem(&section.span(), "policy/entity-to-entity", message);
            self.problems.push(problem.with_help("name a workload in `from` or in `to`, or `any`"));
        }
        let only = |list: &Selectors, other: &Selectors| {
            list.iter().find(|selector| selector.value == Selector::Replicas).cloned().filter(
                |_| !other.iter().any(|selector| matches!(selector.value, Selector::Workloads(_))),
            )
        };
        if let Some(lonely) = only(from, to).or_else(|| only(to, from)) {
            let message =
                "`self` is the replicas of the service at the other end, and no workload is there";
            let problem = file.problem(&lonely.span, "policy/bad-selector", message);
            self.problems.push(problem.with_help("name workloads at the other end, or `any`"));
        }
    }

    /// Ranges of one list that share addresses: one of them is a mistake, and the kernel's sets refuse them.
    fn overlaps(&mut self, section: &Section<'_>, list: &Selectors) {
        let ranges: Vec<(&Located<Selector>, IpNetwork)> = list
            .iter()
            .filter_map(|selector| match selector.value {
                Selector::Cidr(range) => Some((selector, range)),
                _ => None,
            })
            .collect();
        for (index, (selector, range)) in ranges.iter().enumerate() {
            if let Some((_, other)) =
                ranges[..index].iter().find(|(_, other)| overlap(*other, *range))
            {
                let message = format!("{range} overlaps {other} in the same list");
                let problem =
                    section.file().problem(&selector.span, "policy/overlapping-cidr", message);
                self.problems.push(problem.with_help("keep the wider one"));
            }
        }
    }

    /// `ports`; `None` when any of them has a problem.
    fn traffic(&mut self, section: &Section<'_>, helped: Helped) -> Option<BTreeSet<Traffic>> {
        if !section.has("ports") {
            section.strings("ports", &mut self.problems);
            return Some(everything());
        }
        let listed = section.strings("ports", &mut self.problems)?;
        let file = section.file();
        if listed.is_empty() {
            let problem = file.problem(&section.span(), "policy/missing-ports", "`ports` is empty");
            self.problems.push(problem.with_help("leave the key out to mean every port and ping"));
            return None;
        }
        let mut traffic = Vec::new();
        let mut is_whole = true;
        for item in &listed {
            match self.ports(file, item, helped) {
                Some(found) => traffic.extend(found),
                None => is_whole = false,
            }
        }
        is_whole.then(|| merged(traffic))
    }

    fn ports(
        &mut self,
        file: SourceFile<'_>,
        item: &Located<&str>,
        helped: Helped,
    ) -> Option<BTreeSet<Traffic>> {
        if item.value == "ping" {
            return self.kept(helped.written(file, item, Traffic::Ping).map(|ping| [ping].into()));
        }
        if item.value == Provided::EXPOSED {
            let message = "`exposed` is a different port for each image";
            let problem = file.problem(&item.span, "policy/bad-port", message);
            self.problems.push(problem.with_help("write the ports themselves"));
            return None;
        }
        let is_name = item.value.starts_with(|first: char| first.is_ascii_alphabetic());
        if !is_name {
            return match item.value.parse::<Ports>() {
                Ok(ports) => {
                    let traffic = helped.written(file, item, Traffic::Ports(ports));
                    self.kept(traffic.map(|traffic| [traffic].into()))
                }
                Err(error) => {
                    let problem = file.problem(&item.span, "policy/bad-port", error.to_string());
                    self.problems.push(
                        problem.with_help("write 5432/tcp, 8000-8100/udp or a service's name"),
                    );
                    None
                }
            };
        }
        // Without a catalogue no name can be looked up, and nothing is made of the result.
        let Some(catalogue) = self.catalogue else { return Some(BTreeSet::new()) };
        let Some(service) = catalogue.services.get(item.value) else {
            let near = nearest(item.value, catalogue.services.keys().map(|name| name.as_str()));
            self.unknown(file, item, "policy/unknown-service", "service", near);
            return None;
        };
        self.kept(helped.service(file, item, service))
    }

    fn kept<T>(&mut self, found: Result<T, Diagnostic>) -> Option<T> {
        found.map_err(|problem| self.problems.push(problem)).ok()
    }
}

fn overlap(left: IpNetwork, right: IpNetwork) -> bool {
    match (left, right) {
        (IpNetwork::V4(left), IpNetwork::V4(right)) => left.overlaps(right),
        (IpNetwork::V6(left), IpNetwork::V6(right)) => left.overlaps(right),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
