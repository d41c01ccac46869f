//! `seawall check`: every problem of every configuration file, at once.

use super::{CommandError, Exit, Global, Output, load, output};

pub(super) fn check(global: &Global) -> Result<Exit, CommandError> {
    let loaded = match load(global) {
        Err(CommandError::Usage(error)) if global.output == Output::Json => {
            if let Some(problems) = error.downcast_ref::<crate::input::Diagnostics>() {
                output::json(&serde_json::json!({ "problems": problems.clone().sorted() }))?;
            }
            return Err(CommandError::Usage(error));
        }
        other => other?,
    };
    if global.output == Output::Json {
        output::json(&serde_json::json!({ "problems": [] }))?;
        return Ok(Exit::Done);
    }
    let found = if global.config.exists() { "" } else { " (not there: defaults)" };
    output::print(&format!(
        "{}{found}: good. {} models, {} services, {} operator statements; mode {}",
        global.config.display(),
        loaded.catalogue.models.len(),
        loaded.catalogue.services.len(),
        loaded.operator.statements.len(),
        loaded.config.settings.mode,
    ));
    Ok(Exit::Done)
}
