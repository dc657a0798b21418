//! The plugin protocol, as `proto/` defines it.

#![expect(clippy::all, reason = "written by a program")]

pub mod tfplugin6 {
    tonic::include_proto!("tfplugin6");
}

pub mod plugin {
    tonic::include_proto!("plugin");
}
