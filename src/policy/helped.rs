//! Owns what operators say of helpers: `helper` of an `[[allow]]`, and what its ports become with it.

use std::collections::BTreeSet;

use super::statement::{Action, Traffic};
use crate::input::diagnostic::SourceFile;
use crate::input::toml_doc::{Located, Section};
use crate::input::{Diagnostic, Diagnostics, Text};
use crate::model::{Helper, Service};

/// What a statement says of helpers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Helped {
    action: Action,
    helper: Option<Helper>,
}

/// Reads `helper`. `None` where it has a problem.
pub(super) fn read(
    action: Action,
    section: &Section<'_>,
    problems: &mut Diagnostics,
) -> Option<Helped> {
    let Some(found) = section.string("helper", problems) else {
        return (!section.has("helper")).then_some(Helped::none(action));
    };
    let mut refuse = |message: String, help: &str| {
        let problem = section.file().problem(&found.span, "policy/bad-helper", message);
        problems.push(problem.with_help(help));
        None
    };
    match found.value.parse::<Helper>() {
        Err(error) => refuse(error.to_string(), Helper::HELP),
        Ok(_) if action == Action::Deny => {
            let message = "what is denied has no data connections to find".to_owned();
            refuse(
                message,
                "leave `helper` out: whoever may not open a control connection gets none",
            )
        }
        Ok(helper) if !section.has("ports") => {
            let message =
                format!("the helper `{helper}` needs to know which port is the control port");
            refuse(message, "write `ports`")
        }
        Ok(helper) => Some(Helped { action, helper: Some(helper) }),
    }
}

impl Helped {
    /// No helper is written.
    pub(super) fn none(action: Action) -> Self {
        Self { action, helper: None }
    }

    /// What ports, or ping, that are written out become.
    pub(super) fn written(
        self,
        file: SourceFile<'_>,
        item: &Located<&str>,
        traffic: Traffic,
    ) -> Result<Traffic, Diagnostic> {
        match (self.helper, traffic) {
            (None, traffic) => Ok(traffic),
            (Some(helper), Traffic::Ports(ports)) if helper.reads(ports.proto) => {
                Ok(Traffic::Control(ports, helper))
            }
            (Some(helper), other) => {
                let message = format!("the helper `{helper}` does not read {other}");
                let problem = file.problem(&item.span, "policy/bad-helper", message);
                Err(problem.with_help(helper.spoken()))
            }
        }
    }

    /// What a service's ports become: with its own helper, unless they are denied.
    pub(super) fn service(
        self,
        file: SourceFile<'_>,
        item: &Located<&str>,
        service: &Service,
    ) -> Result<BTreeSet<Traffic>, Diagnostic> {
        match (self.helper, service.helper) {
            (Some(helper), Some(own)) if helper != own => {
                let name = Text::new(item.value);
                let message =
                    format!("the service `{name}` has the helper `{own}`, not `{helper}`");
                let problem = file.problem(&item.span, "policy/bad-helper", message);
                Err(problem.with_help("leave `helper` out: the service brings its own"))
            }
            (None, Some(_)) if self.action == Action::Deny => {
                Ok(service.ports.iter().copied().map(Traffic::Ports).collect())
            }
            (helper, own) => {
                let said = Self { helper: helper.or(own), ..self };
                let ports = service.ports.iter().copied().map(Traffic::Ports);
                ports.map(|traffic| said.written(file, item, traffic)).collect()
            }
        }
    }
}
