//! Owns which project and service a workload's labels say it belongs to.

use std::collections::BTreeMap;

use super::workload::{Project, ProjectKind};
use crate::input::Text;

/// The project and the service, from the labels that compose, swarm and Kubernetes set.
///
/// A Kubernetes workload's service is its pod. A swarm service outside any stack has no project.
pub fn from_labels(labels: &BTreeMap<Text, Text>) -> (Option<Project>, Option<Text>) {
    let label = |key: &str| labels.get(key).filter(|value| !value.is_empty());
    let project = |kind, name: &Text| Some(Project { kind, name: name.clone() });
    if let Some(name) = label("com.docker.compose.project") {
        return (project(ProjectKind::Compose, name), label("com.docker.compose.service").cloned());
    }
    let service = label("com.docker.swarm.service.name");
    if let Some(stack) = label("com.docker.stack.namespace") {
        let within = |service: &Text| {
            let rest = service.as_str().strip_prefix(stack.as_str());
            rest.and_then(|rest| rest.strip_prefix('_')).map_or(service.clone(), Text::new)
        };
        return (project(ProjectKind::Swarm, stack), service.map(within));
    }
    if let Some(namespace) = label("io.kubernetes.pod.namespace") {
        return (
            project(ProjectKind::Kubernetes, namespace),
            label("io.kubernetes.pod.name").cloned(),
        );
    }
    (None, service.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> (Option<(ProjectKind, String)>, Option<String>) {
        let labels = labels.iter().map(|(k, v)| (Text::new(k), Text::new(v))).collect();
        let (project, service) = from_labels(&labels);
        (project.map(|p| (p.kind, p.name.to_string())), service.map(|s| s.to_string()))
    }

    #[test]
    fn each_orchestrator_has_its_labels() {
        let some = |kind, name: &str| Some((kind, name.to_owned()));
        assert_eq!(
            read(&[("com.docker.compose.project", "shop"), ("com.docker.compose.service", "web")]),
            (some(ProjectKind::Compose, "shop"), Some("web".into()))
        );
        assert_eq!(
            read(&[
                ("com.docker.stack.namespace", "shop"),
                ("com.docker.swarm.service.name", "shop_web")
            ]),
            (some(ProjectKind::Swarm, "shop"), Some("web".into()))
        );
        assert_eq!(
            read(&[
                ("io.kubernetes.pod.namespace", "prod"),
                ("io.kubernetes.pod.name", "web-5d"),
                ("io.kubernetes.container.name", "nginx")
            ]),
            (some(ProjectKind::Kubernetes, "prod"), Some("web-5d".into()))
        );
        assert_eq!(read(&[("com.docker.swarm.service.name", "web")]), (None, Some("web".into())));
        assert_eq!(read(&[("com.docker.compose.project", "")]), (None, None));
    }
}
