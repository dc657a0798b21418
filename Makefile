# The commands of this repository. `make help` lists them.
SHELL := /bin/bash

.PHONY: sqlx
sqlx: ## Write .sqlx/ anew after a change of SQL
	@deploy/sqlx-data update
