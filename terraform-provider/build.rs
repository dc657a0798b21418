//! Makes the types of the plugin protocol from its definition, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let definition = protox::compile(["tfplugin6.proto", "plugin.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        // Messages that only hold others are never made.
        .type_attribute(".", "#[allow(dead_code)]")
        .compile_fds(definition)?;
    Ok(())
}
