//! `seawall resolve`: which application an image or a container is, with every piece of evidence.

use clap::Args;
use serde::Serialize;

use super::facts::find;
use super::{CommandError, Exit, Global, Output, load, output};
use crate::input::Text;
use crate::metadata::{ImageRef, Runtime, Workload, WorkloadId};
use crate::model::Resolution;
use crate::reconcile::Rules;
use crate::reconcile::desired::resolve_one;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall resolve nginx:1.27
  seawall resolve registry:5000/team/mysql:8
  seawall resolve shop/api --from examples/shop/inspect.json")]
pub(super) struct ResolveArgs {
    /// An image reference; or a running container's name or id; or, with --from, one of the file's.
    #[arg(value_name = "IMAGE|CONTAINER")]
    subject: String,
    /// Look the container up in this file: saved `docker inspect` output, a compose file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    from: Vec<std::path::PathBuf>,
    /// Look the container up among the running ones.
    #[arg(long, conflicts_with = "from")]
    container: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    subject: &'a str,
    title: Option<&'a Text>,
    category: Option<&'a str>,
    source: Option<&'a Text>,
    #[serde(flatten)]
    resolution: &'a Resolution,
}

pub(super) async fn resolve(global: &Global, args: ResolveArgs) -> Result<Exit, CommandError> {
    let (workload, rules) = if args.from.is_empty() && !args.container {
        let reference: ImageRef = args.subject.parse().map_err(|error| {
            CommandError::Usage(
                anyhow::Error::new::<crate::metadata::image::ImageRefError>(error)
                    .context("for a running container add --container"),
            )
        })?;
        let name = Text::new(&args.subject);
        let mut workload = Workload::new(WorkloadId::new("image"), name, Runtime::File);
        workload.image.reference = Some(reference);
        (workload, Rules::from(&load(global)?))
    } else {
        let facts = super::facts::gather(global, &args.from).await?;
        (find(&facts.inventory, &args.subject)?.clone(), facts.rules)
    };
    let resolution = resolve_one(&workload, &rules);
    let model = resolution.model.as_ref().and_then(|name| rules.catalogue.models.get(name));
    let answer = Answer {
        subject: &args.subject,
        title: model.map(|model| &model.title),
        category: model.map(|model| model.category.as_str()),
        source: model.map(|model| &model.source),
        resolution: &resolution,
    };
    match global.output {
        Output::Json => output::json(&answer)?,
        Output::Human => output::print(&text(&answer)),
    }
    Ok(Exit::Done)
}

fn text(answer: &Answer<'_>) -> String {
    let resolution = answer.resolution;
    let subject = Text::new(answer.subject);
    let percent = (resolution.confidence * 100.0).round();
    let mut lines = vec![match (&resolution.model, answer.title, answer.category) {
        (Some(model), Some(title), Some(category)) => {
            format!("{subject}: {model} ({title}, {category}), {percent} % sure")
        }
        _ => format!("{subject}: unknown"),
    }];
    if let Some(reason) = &resolution.reason {
        lines.push(format!("  {reason}"));
    }
    let rows: Vec<Vec<String>> = resolution
        .evidence
        .iter()
        .map(|piece| {
            let kind = serde_json::to_value(piece.kind).ok();
            let kind =
                kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default().replace('_', " ");
            vec![
                format!("{:+.0} %", piece.weight * 100.0),
                piece.model.to_string(),
                kind,
                piece.found.to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        lines.push(output::table(&["WEIGHT", "MODEL", "EVIDENCE", "FOUND"], &rows));
    }
    if let Some(source) = answer.source {
        lines.push(format!("known from {source}"));
    }
    lines.join("\n")
}
