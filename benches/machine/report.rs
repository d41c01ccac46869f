//! stub
pub(crate) fn print(folder: &std::path::Path) {
    for part in ["program", "scale", "traffic"] {
        let Some(sheet) = crate::figures::Sheet::read(&folder.join(format!("{part}.json"))) else { continue };
        for figure in &sheet.figures {
            print!("{:50} {:>10.3} {:>10.3} {}", figure.name, figure.samples.p50, figure.samples.p99, figure.unit);
            for one in &figure.references { print!("  {} {:.3} ({:.2})", one.name, one.samples.p50, one.ratio); }
            println!();
        }
    }
}
