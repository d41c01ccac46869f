//! Owns reading one catalogue file into a [`Draft`]: every value checked on its own, no reference followed yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::input::diagnostic::SourceFile;
use crate::input::toml_doc::{Document, Located, Section, StringOrSection};
use crate::input::{Diagnostic, Diagnostics, Place, Text};
use crate::metadata::{ImageRef, Ports};

use super::catalogue::{Audience, Category, EgressTarget, ModelName, Provided, ServiceName};
use super::helper::Helper;

/// Where a value stands, kept until the references are checked.
#[derive(Clone, Debug)]
pub(super) struct Spot<'a> {
    file: SourceFile<'a>,
    span: Range<usize>,
}

impl Spot<'_> {
    pub(super) fn place(&self) -> Place {
        self.file.place(&self.span)
    }

    pub(super) fn problem(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        self.file.problem(&self.span, code, message)
    }

    /// Where in its file, for saying which of two comes first.
    pub(super) fn offset(&self) -> usize {
        self.span.start
    }
}

/// A value and its place.
pub(super) type At<'a, T> = (T, Spot<'a>);

/// One file, read.
#[derive(Default)]
pub(super) struct Draft<'a> {
    pub(super) services: BTreeMap<ServiceName, DraftService<'a>>,
    pub(super) models: BTreeMap<ModelName, DraftModel<'a>>,
}

pub(super) struct DraftService<'a> {
    pub(super) ports: BTreeSet<Ports>,
    pub(super) helper: Option<Helper>,
    pub(super) spot: Spot<'a>,
}

pub(super) struct DraftModel<'a> {
    pub(super) title: Text,
    pub(super) category: Option<Category>,
    pub(super) images: BTreeMap<ImageRef, Spot<'a>>,
    pub(super) distinctive: BTreeMap<String, Spot<'a>>,
    pub(super) commands: BTreeSet<String>,
    pub(super) env: BTreeSet<String>,
    pub(super) provides: Vec<DraftProvided<'a>>,
    pub(super) uses: Vec<At<'a, ServiceName>>,
    pub(super) egress: Vec<DraftEgress<'a>>,
    pub(super) base: bool,
    pub(super) routes: bool,
    pub(super) source: Text,
    pub(super) spot: Spot<'a>,
}

pub(super) struct DraftProvided<'a> {
    pub(super) service: At<'a, ServiceName>,
    /// `None`: the service's usual ports.
    pub(super) ports: Option<BTreeSet<Ports>>,
    pub(super) to: Vec<At<'a, Audience>>,
    pub(super) spot: Spot<'a>,
}

pub(super) struct DraftEgress<'a> {
    pub(super) to: EgressTarget,
    pub(super) ports: Vec<At<'a, PortsOrService>>,
    pub(super) spot: Spot<'a>,
}

pub(super) enum PortsOrService {
    Ports(Ports),
    Service(ServiceName),
}

/// Reads one file.
pub(super) fn read<'d>(document: &'d Document<'_>, problems: &mut Diagnostics) -> Draft<'d> {
    let mut draft = Draft::default();
    let root = document.root();
    for (name, section, spot) in named_tables(&root, "services", problems) {
        let service = read_service(&section, spot.clone(), problems);
        match service_name(name, &spot, problems) {
            Some(name) if name.as_str() == Provided::EXPOSED => problems.push(
                spot.problem("catalogue/bad-name", "the service `exposed` is predefined")
                    .with_help("it stands for the ports an image or container declares; choose another name"),
            ),
            Some(name) => {
                draft.services.insert(name, service);
            }
            None => {}
        }
    }
    for (name, section, spot) in named_tables(&root, "models", problems) {
        let model = read_model(&section, spot.clone(), problems);
        match ModelName::new(name) {
            Some(name) => {
                draft.models.insert(name, model);
            }
            None => problems.push(bad_name("model", name, &spot)),
        }
    }
    root.finish(problems);
    draft
}

/// The tables of `[KIND.NAME]` with their names.
fn named_tables<'d>(
    root: &Section<'d>,
    kind: &'static str,
    problems: &mut Diagnostics,
) -> Vec<(&'d str, Section<'d>, Spot<'d>)> {
    let Some(tables) = root.section(kind, problems) else { return Vec::new() };
    let mut found = Vec::new();
    for key in tables.keys() {
        if let Some(section) = tables.named(key.value, problems) {
            found.push((key.value, section, Spot { file: tables.file(), span: key.span }));
        }
    }
    found
}

fn read_service<'d>(
    section: &Section<'d>,
    spot: Spot<'d>,
    problems: &mut Diagnostics,
) -> DraftService<'d> {
    if !section.has("ports") {
        problems.push(
            spot.problem("file/missing-key", "a service needs the key `ports`")
                .with_help("a protocol without usual ports has `ports = []`"),
        );
    }
    let ports = ports(section, problems).unwrap_or_default();
    let helper = read_helper(section, &ports, problems);
    section.finish(problems);
    DraftService { ports, helper, spot }
}

fn read_helper(
    section: &Section<'_>,
    ports: &BTreeSet<Ports>,
    problems: &mut Diagnostics,
) -> Option<Helper> {
    let found = section.string("helper", problems)?;
    let spot = at(section, found.span);
    match found.value.parse::<Helper>() {
        Ok(helper) => {
            refuse_unread(helper, ports, &spot, problems);
            Some(helper)
        }
        Err(error) => {
            let problem = spot.problem("catalogue/bad-helper", error.to_string());
            problems.push(problem.with_help(Helper::HELP));
            None
        }
    }
}

/// Reports ports of protocols that the helper does not read.
pub(super) fn refuse_unread(
    helper: Helper,
    ports: &BTreeSet<Ports>,
    spot: &Spot<'_>,
    problems: &mut Diagnostics,
) {
    for unread in ports.iter().filter(|ports| !helper.reads(ports.proto)) {
        let message = format!("the helper `{helper}` does not read {unread}");
        problems.push(spot.problem("catalogue/bad-helper", message).with_help(helper.spoken()));
    }
}

fn read_model<'d>(
    section: &Section<'d>,
    spot: Spot<'d>,
    problems: &mut Diagnostics,
) -> DraftModel<'d> {
    let title = text(section.required_string("title", problems), section, problems);
    let category = section
        .required_string("category", problems)
        .and_then(|name| category(name.value, &at(section, name.span), problems));
    let images = checked(section, "images", problems, image);
    let distinctive = checked(section, "distinctive", problems, distinctive);
    let commands = checked(section, "commands", problems, command);
    let env = checked(section, "env", problems, env_name);
    let provides = read_provides(section, problems);
    let uses = checked(section, "uses", problems, |name, spot| {
        ServiceName::new(name).ok_or_else(|| bad_name("service", name, spot))
    });
    let egress = read_egress(section, problems);
    let base = section.boolean("base", problems).is_some_and(|flag| flag.value);
    let routes = section.boolean("routes", problems).is_some_and(|flag| flag.value);
    let source = if section.has("source") {
        text(section.string("source", problems), section, problems)
    } else {
        section.string("source", problems);
        problems.push(
            spot.problem(
                "catalogue/missing-source",
                "the model does not say where its knowledge comes from",
            )
            .with_help(
                "add `source = \"https://…\"`, the page that documents the image and its ports",
            ),
        );
        Text::default()
    };
    section.finish(problems);
    DraftModel {
        title,
        category,
        images: images.into_iter().collect(),
        distinctive: distinctive.into_iter().collect(),
        commands: commands.into_iter().map(|(name, _)| name).collect(),
        env: env.into_iter().map(|(name, _)| name).collect(),
        provides,
        uses,
        egress,
        base,
        routes,
        source,
        spot,
    }
}

fn read_provides<'d>(section: &Section<'d>, problems: &mut Diagnostics) -> Vec<DraftProvided<'d>> {
    let items = section.strings_or_sections("provides", problems).unwrap_or_default();
    items.into_iter().filter_map(|item| read_provided(section, item, problems)).collect()
}

fn read_provided<'d>(
    section: &Section<'d>,
    item: StringOrSection<'d>,
    problems: &mut Diagnostics,
) -> Option<DraftProvided<'d>> {
    let any = |spot: &Spot<'d>| vec![(Audience::Any, spot.clone())];
    match item {
        StringOrSection::String(name) => {
            let spot = at(section, name.span);
            let service = service_name(name.value, &spot, problems)?;
            let to = any(&spot);
            Some(DraftProvided { service: (service, spot.clone()), ports: None, to, spot })
        }
        StringOrSection::Section(table) => {
            let spot = at(section, table.span());
            let service = table.required_string("service", problems).and_then(|name| {
                let spot = at(&table, name.span);
                Some((service_name(name.value, &spot, problems)?, spot))
            });
            let ports = ports(&table, problems);
            if table.has("ports") {
                refuse_empty(ports.as_ref().map(BTreeSet::is_empty), "ports", &spot, problems);
            }
            let to = if table.has("to") {
                let to = checked(&table, "to", problems, audience);
                refuse_empty(raw_is_empty(&table, "to"), "to", &spot, problems);
                to
            } else {
                table.strings("to", problems);
                any(&spot)
            };
            table.finish(problems);
            Some(DraftProvided { service: service?, ports, to, spot })
        }
    }
}

fn read_egress<'d>(section: &Section<'d>, problems: &mut Diagnostics) -> Vec<DraftEgress<'d>> {
    let mut found = Vec::new();
    for table in section.sections("egress", problems) {
        let spot = at(section, table.span());
        let to = table.required_string("to", problems).and_then(|to| match to.value {
            "internet" => Some(EgressTarget::Internet),
            "world" => Some(EgressTarget::World),
            other => {
                let message = format!("egress cannot go to `{}`", Text::new(other));
                problems.push(
                    at(&table, to.span).problem("catalogue/bad-egress", message).with_help(
                        "`internet` (globally routed addresses) or `world` (any address)",
                    ),
                );
                None
            }
        });
        let ports = checked_list(&table, "ports", problems, ports_or_service);
        if !table.has("ports") || raw_is_empty(&table, "ports") == Some(true) {
            refuse_empty(Some(true), "ports", &spot, problems);
        }
        table.finish(problems);
        found.extend(to.map(|to| DraftEgress { to, ports, spot }));
    }
    found
}

fn at<'d>(section: &Section<'d>, span: Range<usize>) -> Spot<'d> {
    Spot { file: section.file(), span }
}

/// Whether the list under `key` has no items, if it is a list.
fn raw_is_empty(section: &Section<'_>, key: &'static str) -> Option<bool> {
    section.strings(key, &mut Diagnostics::new()).map(|items| items.is_empty())
}

fn refuse_empty(is_empty: Option<bool>, key: &str, spot: &Spot<'_>, problems: &mut Diagnostics) {
    if is_empty == Some(true) {
        problems.push(spot.problem("catalogue/empty", format!("`{key}` must name at least one")));
    }
}

fn text(found: Option<Located<&str>>, section: &Section<'_>, problems: &mut Diagnostics) -> Text {
    let Some(found) = found else { return Text::default() };
    if found.value.trim().is_empty() {
        let spot = at(section, found.span);
        problems.push(spot.problem("catalogue/empty", "this text must not be empty"));
    }
    Text::new(found.value)
}

fn service_name(name: &str, spot: &Spot<'_>, problems: &mut Diagnostics) -> Option<ServiceName> {
    let found = ServiceName::new(name);
    if found.is_none() {
        problems.push(bad_name("service", name, spot));
    }
    found
}

fn category(name: &str, spot: &Spot<'_>, problems: &mut Diagnostics) -> Option<Category> {
    let found = Category::new(name);
    if found.is_none() {
        problems.push(bad_name("category", name, spot));
    }
    found
}

fn bad_name(kind: &str, name: &str, spot: &Spot<'_>) -> Diagnostic {
    spot.problem("catalogue/bad-name", format!("`{}` is no {kind} name", Text::new(name)))
        .with_help("names are 1 to 64 of a-z 0-9 - _ . and start with a letter or digit")
}

fn ports(section: &Section<'_>, problems: &mut Diagnostics) -> Option<BTreeSet<Ports>> {
    if !section.has("ports") {
        section.strings("ports", problems);
        return None;
    }
    let read = |text: &str, spot: &Spot<'_>| {
        text.parse::<Ports>().map_err(|error| spot.problem("catalogue/bad-port", error.to_string()))
    };
    let found = checked_list(section, "ports", problems, read);
    let is_empty = raw_is_empty(section, "ports")?;
    (is_empty || !found.is_empty()).then(|| found.into_iter().map(|(ports, _)| ports).collect())
}

/// The values of a list that pass `check`; the others are problems.
fn checked_list<'d, T>(
    section: &Section<'d>,
    key: &'static str,
    problems: &mut Diagnostics,
    check: impl Fn(&str, &Spot<'d>) -> Result<T, Diagnostic>,
) -> Vec<At<'d, T>> {
    let mut found = Vec::new();
    for item in section.strings(key, problems).unwrap_or_default() {
        let spot = at(section, item.span);
        match check(item.value, &spot) {
            Ok(value) => found.push((value, spot)),
            Err(problem) => problems.push(problem),
        }
    }
    found
}

/// Like [`checked_list`], but a value may stand there once only.
fn checked<'d, T: Ord>(
    section: &Section<'d>,
    key: &'static str,
    problems: &mut Diagnostics,
    check: impl Fn(&str, &Spot<'d>) -> Result<T, Diagnostic>,
) -> Vec<At<'d, T>> {
    let found = checked_list(section, key, problems, check);
    let mut seen = BTreeSet::new();
    for (value, spot) in &found {
        if !seen.insert(value) {
            let message = format!("`{key}` names this twice");
            problems.push(spot.problem("catalogue/repeated", message));
        }
    }
    found
}

fn audience(text: &str, spot: &Spot<'_>) -> Result<Audience, Diagnostic> {
    let named = |kind, name| bad_name(kind, name, spot);
    match text.split_once(':') {
        None if text == "any" => Ok(Audience::Any),
        Some(("category", name)) => {
            Category::new(name).map(Audience::Category).ok_or_else(|| named("category", name))
        }
        Some(("model", name)) => {
            ModelName::new(name).map(Audience::Model).ok_or_else(|| named("model", name))
        }
        _ => {
            let message = format!("`{}` says nobody to serve", Text::new(text));
            Err(spot
                .problem("catalogue/bad-audience", message)
                .with_help("write `any`, `category:NAME` or `model:NAME`"))
        }
    }
}

fn ports_or_service(text: &str, spot: &Spot<'_>) -> Result<PortsOrService, Diagnostic> {
    match text.parse::<Ports>() {
        Ok(ports) => Ok(PortsOrService::Ports(ports)),
        Err(error) if text.contains('/') || text.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(spot.problem("catalogue/bad-port", error.to_string()))
        }
        Err(_) => ServiceName::new(text)
            .map(PortsOrService::Service)
            .ok_or_else(|| bad_name("service", text, spot)),
    }
}

fn image(text: &str, spot: &Spot<'_>) -> Result<ImageRef, Diagnostic> {
    let image: ImageRef =
        text.parse().map_err(|error: crate::metadata::image::ImageRefError| {
            spot.problem("catalogue/bad-image", error.to_string())
        })?;
    if image.tag.is_some() || image.digest.is_some() {
        let message = format!("`{image}` has a tag or digest");
        return Err(spot
            .problem("catalogue/bad-image", message)
            .with_help("a model is the same whatever the tag; write the repository alone"));
    }
    Ok(image)
}

fn distinctive(text: &str, spot: &Spot<'_>) -> Result<String, Diagnostic> {
    match text.parse::<ImageRef>() {
        Ok(image) if image.repository == text => {}
        _ => {
            let message = format!("`{}` is not one path element", Text::new(text));
            return Err(spot.problem("catalogue/bad-distinctive", message).with_help(
                "write the last element of an image's path, such as `mysql` in `team/mysql:8`",
            ));
        }
    }
    if text.contains('/') {
        let message = format!("`{}` is more than one path element", Text::new(text));
        return Err(spot
            .problem("catalogue/bad-distinctive", message)
            .with_help("whole repositories belong into `images`"));
    }
    Ok(text.to_owned())
}

fn command(text: &str, spot: &Spot<'_>) -> Result<String, Diagnostic> {
    let is_program = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '=' | ';' | '&' | '|'));
    if is_program {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is no program's name", Text::new(text));
    Err(spot
        .problem("catalogue/bad-command", message)
        .with_help("write the name alone, without path and arguments"))
}

fn env_name(text: &str, spot: &Spot<'_>) -> Result<String, Diagnostic> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` is no environment variable's name", Text::new(text));
    Err(spot
        .problem("catalogue/bad-env", message)
        .with_help("letters, digits and _, as in `PGDATA`"))
}
