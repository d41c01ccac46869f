//! Owns which project and service a workload's labels say it belongs to.

use std::collections::BTreeMap;

use super::workload::{Project, ProjectKind, Workload};
use crate::input::Text;

/// Labels that compose gives containers and never images: whoever has one of them was started by compose, which then
/// wrote the others too. (The images that compose builds carry project and service, so those alone prove nothing.)
const COMPOSE_MARKS: [&str; 6] = [
    "com.docker.compose.config-hash",
    "com.docker.compose.container-number",
    "com.docker.compose.image",
    "com.docker.compose.oneoff",
    "com.docker.compose.project.config_files",
    "com.docker.compose.project.working_dir",
];

/// Whether it is certain that a label of compose's comes from compose and not with the image (security model 7).
pub fn is_from_compose(workload: &Workload, key: &str) -> bool {
    let is_certain = |key: &str| workload.operator_label(key).is_some();
    is_certain(key) || COMPOSE_MARKS.into_iter().any(is_certain)
}

/// The project and the service of a workload whose image's labels are known. What may come with the image is not
/// believed: an image must not make itself a member of somebody's project (security model 7).
pub fn of(workload: &Workload) -> (Option<Project>, Option<Text>) {
    from_labels(&workload.labels, |key| match key.starts_with("com.docker.compose.") {
        true => is_from_compose(workload, key),
        false => workload.operator_label(key).is_some(),
    })
}

/// The project and the service, from those of the labels that compose, swarm and Kubernetes set which are believed.
///
/// A Kubernetes workload's service is its pod. A swarm service outside any stack has no project.
pub fn from_labels(
    labels: &BTreeMap<Text, Text>,
    is_believed: impl Fn(&str) -> bool,
) -> (Option<Project>, Option<Text>) {
    let label = |key: &str| labels.get(key).filter(|value| !value.is_empty() && is_believed(key));
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
    use crate::metadata::workload::{Runtime, WorkloadId};

    fn read(labels: &[(&str, &str)]) -> (Option<(ProjectKind, String)>, Option<String>) {
        let labels = labels.iter().map(|(k, v)| (Text::new(k), Text::new(v))).collect();
        let (project, service) = from_labels(&labels, |_| true);
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

    fn of_image(labels: &[(&str, &str)], of_image: &[(&str, &str)]) -> Option<String> {
        let map = |labels: &[(&str, &str)]| -> BTreeMap<Text, Text> {
            labels.iter().map(|(k, v)| (Text::new(k), Text::new(v))).collect()
        };
        let mut workload = Workload::new(WorkloadId::new("x"), "x".into(), Runtime::Docker);
        workload.labels = map(of_image);
        workload.labels.extend(map(labels));
        workload.image.labels = Some(map(of_image));
        let (project, service) = of(&workload);
        let service = service.map(|name| name.to_string()).unwrap_or_default();
        project.map(|project| format!("{}/{service}", project.name))
    }

    #[test]
    fn an_image_cannot_join_a_project() {
        let compose =
            [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "api")];
        assert_eq!(of_image(&[], &compose), None);
        assert_eq!(of_image(&compose, &[]).as_deref(), Some("shop/api"));
        // Started by compose from an image that compose built.
        let mark = [("com.docker.compose.config-hash", "5f0c")];
        assert_eq!(of_image(&mark, &compose).as_deref(), Some("shop/api"));
        // The image brings the mark as well.
        assert_eq!(of_image(&[], &[compose.as_slice(), &mark].concat()), None);
        for key in ["com.docker.stack.namespace", "io.kubernetes.pod.namespace"] {
            assert_eq!(of_image(&[], &[(key, "shop")]), None, "{key}");
            assert_eq!(of_image(&[(key, "shop")], &[]).as_deref(), Some("shop/"), "{key}");
        }
    }
}
