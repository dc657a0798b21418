//! What Terraform asks, answered.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use client::{Given, Place};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::cloud::{self, Cloud};
use crate::diagnose::{self, error};
use crate::plan::{self, Private};
use crate::protocol::tfplugin6::provider_server::Provider;
use crate::protocol::tfplugin6::*;
use crate::resource::Resource;
use crate::validate::validate;
use crate::value::{self, Object, Value, decode, encode};
use crate::{configuration, data, import, schema};

/// The provider; all clones are one.
#[derive(Clone)]
pub struct Cumulo {
    cloud: Arc<OnceLock<Cloud>>,
    /// How many changes are being made.
    busy: Arc<watch::Sender<usize>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Cumulo {
    pub fn new() -> Self {
        Self { cloud: Arc::default(), busy: Arc::new(watch::Sender::new(0)) }
    }

    /// Waits for changes that are being made.
    pub async fn finish(&self, limit: Duration) {
        let mut busy = self.busy.subscribe();
        let _late = tokio::time::timeout(limit, busy.wait_for(|busy| *busy == 0)).await;
    }

    fn cloud(&self) -> Result<&Cloud> {
        self.cloud.get().context("the provider is not configured")
    }

    fn configure(&self, config: &Object) -> Result<()> {
        // Another cloud or project in place of one that is not known yet would be the wrong one.
        if let Some((name, _)) = config.iter().find(|(_, value)| **value == Value::Unknown) {
            bail!(
                "the provider's `{name}` is known after apply only. Give what is known before, or set `project` in each \
                 resource"
            );
        }
        let text = |name: &str| config.get(name).and_then(Value::as_text).map(str::to_owned);
        let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let place = Place::find(Given {
            context: text("context").or_else(|| env("CUMULO_CONTEXT")),
            url: text("url"),
            api_key: text("api_key"),
            project: text("project").or_else(|| env("CUMULO_PROJECT")),
        })?;
        let checks_plans = config.get("check_plans") != Some(&Value::Bool(false));
        let cloud = Cloud { client: place.client, project: place.project, checks_plans };
        self.cloud.set(cloud).ok().context("the provider is configured already")
    }

    async fn read(&self, request: read_resource::Request) -> Result<read_resource::Response> {
        let resource = find(&request.type_name)?;
        let Some(state) = decode(request.current_state)? else {
            return Ok(read_resource::Response::default());
        };
        let found = self.cloud()?.find(resource, &state).await?;
        let private = found
            .as_ref()
            .map(|shown| cloud::private(resource, shown).after(&request.private).write())
            .unwrap_or_default();
        let state = found.map(|shown| cloud::refresh(resource, &state, &shown));
        Ok(read_resource::Response { new_state: Some(encode(state)), private, ..Default::default() })
    }

    async fn plan(&self, request: plan_resource_change::Request) -> Result<plan_resource_change::Response> {
        let resource = find(&request.type_name)?;
        let (prior, config) = (decode(request.prior_state)?, decode(request.config)?);
        let private = Private::read(&request.prior_private);
        let wants_it = decode(request.proposed_new_state)?.is_some();
        let (Some(config), true) = (config, wants_it) else {
            let diagnostics = match (&prior, self.cloud()) {
                (Some(prior), Ok(cloud)) => cloud.check_removal(resource, prior).await,
                _ => Vec::new(),
            };
            let planned_state = Some(encode(None));
            return Ok(plan_resource_change::Response {
                planned_state,
                diagnostics,
                planned_private: request.prior_private,
                ..Default::default()
            });
        };
        let project = self.cloud.get().and_then(|cloud| cloud.project.as_deref());
        let plan = plan::plan(resource, &config, prior.as_ref(), &private, project);
        let diagnostics = match self.cloud() {
            Ok(cloud) if plan.changes => {
                cloud.check(resource, &plan, &config, prior.as_ref(), &private).await
            }
            _ => Vec::new(),
        };
        Ok(plan_resource_change::Response {
            planned_state: Some(encode(Some(plan.planned))),
            requires_replace: plan.replaces.iter().map(|name| diagnose::path(&format!("/{name}"))).collect(),
            planned_private: request.prior_private,
            diagnostics,
        })
    }

    async fn apply(
        &self,
        request: apply_resource_change::Request,
    ) -> Result<apply_resource_change::Response> {
        let (resource, cloud) = (find(&request.type_name)?, self.cloud()?);
        let config = decode(request.config)?.unwrap_or_default();
        let outcome = match (decode(request.prior_state)?, decode(request.planned_state)?) {
            (None, Some(planned)) => cloud.create(resource, &planned, &config).await,
            (Some(prior), Some(planned)) => cloud.update(resource, &prior, &planned).await,
            (Some(prior), None) => {
                let diagnostics = cloud.delete(resource, &prior).await;
                let is_there = !diagnostics.is_empty();
                let new_state = Some(encode(is_there.then_some(prior)));
                return Ok(apply_resource_change::Response {
                    new_state,
                    diagnostics,
                    private: request.planned_private,
                });
            }
            (None, None) => anyhow::bail!("there is nothing to do"),
        };
        let private = outcome.private.map_or(request.planned_private.clone(), |private| {
            private.after(&request.planned_private).write()
        });
        Ok(apply_resource_change::Response {
            new_state: Some(encode(outcome.state)),
            private,
            diagnostics: outcome.diagnostics,
        })
    }

    fn upgrade(request: &upgrade_resource_state::Request) -> Result<upgrade_resource_state::Response> {
        let resource = find(&request.type_name)?;
        let raw = request.raw_state.as_ref().context("there is no state")?;
        let json: serde_json::Map<_, _> =
            serde_json::from_slice(&raw.json).context("the state is no JSON")?;
        let upgraded_state = Some(encode(Some(value::conform(&resource.attributes, &json))));
        Ok(upgrade_resource_state::Response { upgraded_state, diagnostics: Vec::new() })
    }
}

fn find(type_name: &str) -> Result<&'static Resource> {
    Resource::find(type_name).with_context(|| format!("there is no {type_name}"))
}

fn said(summary: &str, error: &anyhow::Error) -> Vec<Diagnostic> {
    diagnose::failure(summary, error, |_| false)
}

#[tonic::async_trait]
impl Provider for Cumulo {
    async fn get_metadata(&self, _: Request<get_metadata::Request>) -> Answer<get_metadata::Response> {
        let named = |type_name: &String| get_metadata::Named { type_name: type_name.clone() };
        Ok(Response::new(get_metadata::Response {
            server_capabilities: Some(capabilities()),
            resources: resources().keys().map(named).collect(),
            data_sources: data::schemas().keys().map(named).collect(),
            diagnostics: Vec::new(),
        }))
    }

    async fn get_provider_schema(
        &self,
        _: Request<get_provider_schema::Request>,
    ) -> Answer<get_provider_schema::Response> {
        Ok(Response::new(get_provider_schema::Response {
            provider: Some(schema::block(&configuration::attributes(), configuration::ABOUT)),
            resource_schemas: resources(),
            data_source_schemas: data::schemas(),
            diagnostics: Vec::new(),
            server_capabilities: Some(capabilities()),
        }))
    }

    async fn validate_provider_config(
        &self,
        _: Request<validate_provider_config::Request>,
    ) -> Answer<validate_provider_config::Response> {
        Ok(Response::new(validate_provider_config::Response::default()))
    }

    async fn validate_resource_config(
        &self,
        request: Request<validate_resource_config::Request>,
    ) -> Answer<validate_resource_config::Response> {
        let request = request.into_inner();
        let look = || {
            Ok(validate(&find(&request.type_name)?.attributes, &decode(request.config)?.unwrap_or_default()))
        };
        let diagnostics = look().unwrap_or_else(|why| said("Cannot read this configuration", &why));
        Ok(Response::new(validate_resource_config::Response { diagnostics }))
    }

    async fn validate_data_resource_config(
        &self,
        _: Request<validate_data_resource_config::Request>,
    ) -> Answer<validate_data_resource_config::Response> {
        Ok(Response::new(validate_data_resource_config::Response::default()))
    }

    async fn upgrade_resource_state(
        &self,
        request: Request<upgrade_resource_state::Request>,
    ) -> Answer<upgrade_resource_state::Response> {
        let failed = |why| upgrade_resource_state::Response {
            upgraded_state: None,
            diagnostics: said("Cannot read this state", &why),
        };
        Ok(Response::new(Self::upgrade(request.get_ref()).unwrap_or_else(failed)))
    }

    async fn configure_provider(
        &self,
        request: Request<configure_provider::Request>,
    ) -> Answer<configure_provider::Response> {
        let config = decode(request.into_inner().config).map(Option::unwrap_or_default);
        let diagnostics = match config.and_then(|config| self.configure(&config)) {
            Ok(()) => Vec::new(),
            Err(why) => vec![error("Cannot find the cloud", format!("{why:#}"))],
        };
        Ok(Response::new(configure_provider::Response { diagnostics }))
    }

    async fn read_resource(
        &self,
        request: Request<read_resource::Request>,
    ) -> Answer<read_resource::Response> {
        let request = request.into_inner();
        let (state, private) = (request.current_state.clone(), request.private.clone());
        let failed = |why| read_resource::Response {
            new_state: state,
            private,
            diagnostics: said("Cannot read this resource", &why),
        };
        Ok(Response::new(self.read(request).await.unwrap_or_else(failed)))
    }

    async fn plan_resource_change(
        &self,
        request: Request<plan_resource_change::Request>,
    ) -> Answer<plan_resource_change::Response> {
        let failed = |why| plan_resource_change::Response {
            diagnostics: said("Cannot plan this", &why),
            ..Default::default()
        };
        Ok(Response::new(self.plan(request.into_inner()).await.unwrap_or_else(failed)))
    }

    async fn apply_resource_change(
        &self,
        request: Request<apply_resource_change::Request>,
    ) -> Answer<apply_resource_change::Response> {
        let (this, request) = (self.clone(), request.into_inner());
        let prior = request.prior_state.clone();
        // It ends as it should, even if Terraform does not wait for the answer.
        let task = tokio::spawn(async move {
            this.busy.send_modify(|busy| *busy += 1);
            let applied = this.apply(request).await;
            this.busy.send_modify(|busy| *busy -= 1);
            applied
        });
        let applied = task.await.map_err(anyhow::Error::from).and_then(|applied| applied);
        let failed = |why| apply_resource_change::Response {
            new_state: prior,
            diagnostics: said("Cannot apply this", &why),
            ..Default::default()
        };
        Ok(Response::new(applied.unwrap_or_else(failed)))
    }

    async fn import_resource_state(
        &self,
        request: Request<import_resource_state::Request>,
    ) -> Answer<import_resource_state::Response> {
        let request = request.into_inner();
        let project = self.cloud.get().and_then(|cloud| cloud.project.as_deref());
        let imported =
            find(&request.type_name).and_then(|resource| import::state(resource, &request.id, project));
        let mut private = Private { is_made: true, ..Private::default() };
        let project = imported.as_ref().ok().and_then(|state| state.get("project")?.as_text());
        if let (Some(cloud), Some(project)) = (self.cloud.get(), project)
            && let Some(names) = cloud::project_names(cloud, project).await
        {
            private.names.insert("project".to_owned(), vec![names]);
        }
        Ok(Response::new(match imported {
            Ok(state) => import_resource_state::Response {
                imported_resources: vec![import_resource_state::ImportedResource {
                    type_name: request.type_name,
                    state: Some(encode(Some(state))),
                    private: private.write(),
                }],
                diagnostics: Vec::new(),
            },
            Err(why) => import_resource_state::Response {
                diagnostics: said("Cannot import this", &why),
                ..Default::default()
            },
        }))
    }

    async fn read_data_source(
        &self,
        request: Request<read_data_source::Request>,
    ) -> Answer<read_data_source::Response> {
        let request = request.into_inner();
        let read = async {
            let config = decode(request.config)?.unwrap_or_default();
            data::read(self.cloud()?, &request.type_name, &config).await
        };
        Ok(Response::new(match read.await {
            Ok(state) => {
                read_data_source::Response { state: Some(encode(Some(state))), diagnostics: Vec::new() }
            }
            Err(why) => {
                read_data_source::Response { state: None, diagnostics: said("Cannot read this", &why) }
            }
        }))
    }

    /// What was begun ends by itself: a change that is cut off helps nobody.
    async fn stop_provider(&self, _: Request<stop_provider::Request>) -> Answer<stop_provider::Response> {
        Ok(Response::new(stop_provider::Response::default()))
    }
}

fn capabilities() -> ServerCapabilities {
    ServerCapabilities { plan_destroy: true, get_provider_schema_optional: true }
}

fn resources() -> std::collections::HashMap<String, Schema> {
    let all = crate::resource::RESOURCES.iter();
    all.map(|one| (format!("cumulo_{}", one.entry.name), schema::block(&one.attributes, one.entry.about)))
        .collect()
}
