//! The committed YAML is what the types say. `UPDATE_GOLDENFILES=1 cargo test -p understudy-crds`
//! writes it anew; the difference is then reviewed like code.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

use std::path::Path;

#[test]
fn the_committed_definitions_equal_the_types() {
    for (file, crd) in understudy_crds::all_crds() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let generated = format!(
            "# Generated from crds/src by `UPDATE_GOLDENFILES=1 cargo test -p understudy-crds`.\n{}",
            serde_yaml::to_string(&crd).unwrap()
        );
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == generated, "{file} is not what the types say; see this test's head");
    }
}
