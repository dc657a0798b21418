//! Where image files are kept: a folder, or a bucket of an S3 service.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use object_store::aws::AmazonS3Builder;

use super::blob_store::ImageStore;

/// Where the image files are. Without a bucket: in the data directory.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ImageStoreOptions {
    /// Keep image files in this bucket of an S3 service. The bucket must exist, and hold nothing else.
    #[arg(long, env = "CUMULO_IMAGE_STORE_BUCKET", value_name = "BUCKET")]
    pub image_store_bucket: Option<String>,
    /// Address of the service, `https://…`; without it, that of AWS. Plain HTTP only on loopback.
    #[arg(long, env = "CUMULO_IMAGE_STORE_ENDPOINT", requires = "image_store_bucket", value_name = "URL")]
    pub image_store_endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, env = "CUMULO_IMAGE_STORE_REGION", default_value = "us-east-1", value_name = "REGION")]
    pub image_store_region: String,
    /// File with the lines `aws_access_key_id = …` and `aws_secret_access_key = …`, mode 0600. Without it, they come
    /// from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    #[arg(
        long,
        env = "CUMULO_IMAGE_STORE_CREDENTIALS",
        requires = "image_store_bucket",
        value_name = "FILE"
    )]
    pub image_store_credentials: Option<Utf8PathBuf>,
}

/// Never shown, never logged.
struct Credentials {
    key_id: String,
    secret: String,
    token: Option<String>,
}

impl ImageStoreOptions {
    /// Opens the store.
    ///
    /// # Errors
    /// When the folder cannot be made, or credentials of the service are missing. Whether the service answers shows
    /// at the first use.
    pub fn open(&self, data_dir: &Utf8Path) -> anyhow::Result<ImageStore> {
        let Some(bucket) = &self.image_store_bucket else {
            return Ok(ImageStore::local(&data_dir.join("images"))?);
        };
        let credentials = match &self.image_store_credentials {
            Some(path) => from_file(path)?,
            None => from_pairs(|name| std::env::var(name.to_ascii_uppercase()).ok()).context(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --image-store-credentials",
            )?,
        };
        self.remote(bucket, credentials)
    }

    fn remote(&self, bucket: &str, credentials: Credentials) -> anyhow::Result<ImageStore> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.image_store_region)
            .with_access_key_id(credentials.key_id)
            .with_secret_access_key(credentials.secret);
        if let Some(token) = credentials.token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &self.image_store_endpoint {
            let url = reqwest::Url::parse(endpoint).context("--image-store-endpoint is no URL")?;
            let plain = match (url.scheme(), url.host_str()) {
                ("https", _) => false,
                ("http", Some("127.0.0.1" | "[::1]" | "localhost")) => true,
                _ => bail!("--image-store-endpoint: https://…, or http:// on loopback"),
            };
            ensure!(url.password().is_none(), "--image-store-endpoint: leave the password out");
            builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(plain);
        }
        let objects = builder.build().context("cannot prepare the image store")?;
        Ok(ImageStore::remote(Arc::new(objects)))
    }
}

fn from_file(path: &Utf8Path) -> anyhow::Result<Credentials> {
    let mode = std::fs::metadata(path).with_context(|| format!("cannot read {path}"))?.permissions().mode();
    ensure!(mode & 0o077 == 0, "{path} can be read by others: chmod 600 {path}");
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("{path}: aws_access_key_id or aws_secret_access_key is missing"))
}

/// Lines `name = value`; sections and comments are passed over.
fn parse(text: &str) -> Option<Credentials> {
    from_pairs(|name| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    })
}

fn from_pairs(value: impl Fn(&str) -> Option<String>) -> Option<Credentials> {
    let value = |name| value(name).filter(|value| !value.is_empty());
    Some(Credentials {
        key_id: value("aws_access_key_id")?,
        secret: value("aws_secret_access_key")?,
        token: value("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_aws_writes_them() {
        let text = "# mine\n[default]\naws_access_key_id = AKIA\naws_secret_access_key=a/b=c\n";
        let found = parse(text).unwrap();
        assert_eq!((found.key_id.as_str(), found.secret.as_str(), found.token), ("AKIA", "a/b=c", None));
        assert!(parse("aws_access_key_id = AKIA\naws_secret_access_key =\n").is_none());
    }

    #[test]
    fn a_file_that_others_can_read_and_plain_http_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("credentials");
        std::fs::write(&path, "aws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
        let options = |endpoint: &str| ImageStoreOptions {
            image_store_bucket: Some("images".to_owned()),
            image_store_endpoint: Some(endpoint.to_owned()),
            image_store_region: "us-east-1".to_owned(),
            image_store_credentials: Some(path.clone()),
        };
        let open = |endpoint| options(endpoint).open(Utf8Path::new("/nowhere"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(open("https://s3.test").unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let store = open("https://s3.test").unwrap();
        assert!(!format!("{store:?}").contains("aws_secret"));
        open("http://127.0.0.1:9000").unwrap();
        for endpoint in ["http://s3.test", "ftp://s3.test", "s3.test", "https://a:b@s3.test"] {
            open(endpoint).unwrap_err();
        }
    }
}
