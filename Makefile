# `make` alone lists the targets. Set-up goes into the checkout, under .local, and is done once: each
# part has a stamp that is older than the file it was installed from only if that file has changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ARCHITECTURE ?= arm64
PIP := bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps
AWS := .local/venv-aws/.installed
TOOLS := .local/venv-tools/.installed
SDK := .local/venv-sdk/.installed
NODE := tests/sdk/node_modules/.installed
LOCAL := target/debug/local
TEMPLATE := infra/template.yaml

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | awk -F ':.* ## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: up ## tell the whole story on the local stack; DATA=<file.csv.gz> LIMIT=<n> for real invoices
	@$(LOCAL) demo $(if $(DATA),--data "$(DATA)") $(if $(LIMIT),--limit "$(LIMIT)")

.PHONY: books
books: setup ## real invoices of DATA=<file.csv.gz> in both books, to the penny, then EDITS=<n> changes and reconciliation
	@CROSSDOCK_BOOKS="$(abspath $(DATA))" LIMIT="$(LIMIT)" EDITS="$(EDITS)" cargo test --workspace --test sim -- --nocapture --exact retail::a_real_shop_in_both_books

.PHONY: test
test: setup ## run every test
	@tests/run.sh

# A seed is one story of a shop, whose books, workers and misfortunes it decides.
.PHONY: sim
sim: ## simulate until stopped; SEEDS=<how many>, FROM=<the first>; SEED=<one> tells its story
	@CROSSDOCK_SEED=$(or $(SEED),$(FROM),1) CROSSDOCK_RUNS=$(if $(SEED),1,$(or $(SEEDS),0)) \
	    cargo test --workspace --test sim -- --exact seeds::whatever_happens_the_books_are_right --nocapture

.PHONY: bench
bench: ## measure the engine's processor time for each record, in release code (builds for long)
	@cargo bench --workspace --bench push

.PHONY: bench-webhooks
bench-webhooks: ## measure the release functions of outbound webhooks beside a bare client (builds for long)
	@cargo build --release --workspace --bin webhook_deliver --bin webhook_fanout
	@cargo bench --workspace --bench webhooks

.PHONY: cost
cost: ## what a million webhook deliveries cost at AWS, by counted calls, line by line
	@cargo test --quiet --workspace --test sim -- --exact cost::a_million_deliveries --nocapture

.PHONY: mutants
mutants: setup ## break the engine on purpose, in a copy, and see the simulation catch it; ONLY=<name>
	@.local/venv-tools/bin/python tests/mutations/run.py $(ONLY)

.PHONY: up
up: setup ## start the local stack, or repair it; prints every URL and the platform key
	@echo "Building (the first time takes several minutes)."
	@cargo build --workspace --bins
	@$(LOCAL) up

.PHONY: down
down: ## stop the local stack; leaves no process
	@if [ -x $(LOCAL) ]; then $(LOCAL) down; else echo "Nothing was ever started from this checkout."; fi

.PHONY: logs
logs: ## follow the functions' logs as JSON lines; FUNCTION=<name> for one
	@$(LOCAL) logs --follow $(if $(FUNCTION),--function "$(FUNCTION)")

.PHONY: status
status: ## what runs where
	@$(LOCAL) status

.PHONY: check
check: setup ## format, lints, template
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	.local/venv-tools/bin/cfn-lint $(TEMPLATE)
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=$${AWS_DEFAULT_REGION:-us-east-1} .local/venv-tools/bin/sam validate --lint

.PHONY: build
build: setup ## build the functions for deployment; ARCHITECTURE=arm64 (default) or x86_64
	@rustup target list --installed | grep -qx '$(subst arm64,aarch64,$(ARCHITECTURE))-unknown-linux-gnu' \
	    || { echo "Missing: the Rust target. Install it with: rustup target add $(subst arm64,aarch64,$(ARCHITECTURE))-unknown-linux-gnu"; exit 1; }
	PATH="$$PWD/.local/venv-tools/bin:$$PATH" cargo lambda build --release --package functions --$(subst _,-,$(ARCHITECTURE))

# Always after a build of its own: the local stack lays its own binaries into the same folders.
.PHONY: deploy
deploy: build ## deploy to the AWS account that the AWS_* variables name
	SAM_CLI_TELEMETRY=0 .local/venv-tools/bin/sam deploy

# It serves real accounts as well as the local stack.
.PHONY: configure
configure: ## store the providers' credentials of FILE=<env file>; STACK=crossdock-production (default) or local
	@[ -n "$(FILE)" ] || { echo "Name the file: make configure FILE=providers.env"; exit 2; }
	@cargo build --quiet --workspace --bins
	@$(LOCAL) configure --file "$(FILE)" $(if $(STACK),--stack "$(STACK)") $(if $(filter 1,$(FORCE)),--force)

.PHONY: setup
setup: prerequisites $(AWS) $(TOOLS) $(SDK) $(NODE)

.PHONY: prerequisites
prerequisites:
	@tests/stack/prerequisites.sh

$(AWS): tests/stack/requirements-aws.txt
	@echo "Installing the local AWS into .local/venv-aws (about half a minute)."
	@python3 -m venv --clear .local/venv-aws
	@.local/venv-aws/$(PIP) -r $<
	@touch $@

$(TOOLS): tests/stack/requirements-tools.txt
	@echo "Installing sam, cfn-lint and cargo-lambda into .local/venv-tools (about a minute)."
	@python3 -m venv --clear .local/venv-tools
	@.local/venv-tools/$(PIP) -r $<
	@touch $@

$(SDK): tests/sdk/requirements.txt
	@echo "Installing the vendors' own libraries into .local/venv-sdk (about half a minute)."
	@python3 -m venv --clear .local/venv-sdk
	@.local/venv-sdk/$(PIP) -r $<
	@touch $@

$(NODE): tests/sdk/package-lock.json
	@echo "Installing the Node packages of the tests."
	@npm ci --prefix tests/sdk --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
