# `make` alone says what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SEEDS ?= 300
SEED ?=
CONTROLLERS ?= 0
FUZZTIME ?= 60s
FOR ?= 10m
TEST ?= .
PART ?= connect,rest,history
HISTORY ?= 1250000

# Everything but the scenarios, which start real parts and take minutes.
fast = $$(go list ./... | grep -v '^plane/scenarios\(/\|$$\)')
report = go run ./scripts/testreport

# The linter is compiled here, from the Go module proxy, and kept by version.
lint_version = $(shell go list -C tools -m -f '{{.Version}}' github.com/golangci/golangci-lint/v2)
linter = .cache/golangci-lint-$(lint_version)-$(shell go env GOVERSION)

.PHONY: help
help: ## say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@printf '\n  SEEDS=%s how many, SEED=N which one, CONTROLLERS=3 of three controllers each, FUZZTIME=%s for each, FOR=%s how long, TEST=. which scenarios and benchmarks, PART=%s and HISTORY=%s of bench-store\n' '$(SEEDS)' '$(FUZZTIME)' '$(FOR)' '$(PART)' '$(HISTORY)'

.PHONY: demo
demo: build ## a shared whiteboard, run by Plane on this machine
	@exec bin/plane demo

.PHONY: build
build: ## bin/plane
	@CGO_ENABLED=0 go build -trimpath -o bin/plane ./cmd/plane

.PHONY: check
check: fmt vet lint ## what every commit passes: format, vet, lint and the fast tests
	@$(report) -short $(fast)

.PHONY: test
test: ## all tests that this machine can run; installs what they need
	@scripts/test

.PHONY: race
race: ## all tests but the scenarios, with the race detector
	@$(report) -race -timeout 20m $(fast)

.PHONY: scenarios
scenarios: build ## whole clusters on real parts
	@scripts/deps
	@$(report) -count=1 -timeout 30m -run '$(TEST)' ./scenarios/...

.PHONY: soak
soak: build ## 1,000 idle WebSockets on 200 backends, for FOR: is memory flat?
	@go test -count=1 -timeout 3h -v -run '^TestSoak$$' ./scenarios -soak $(FOR) -plane $(CURDIR)/bin/plane

.PHONY: sim
sim: ## a simulated cluster under faults, for SEEDS seeds
	@go run ./cmd/sim sweep -seeds $(SEEDS) -controllers $(CONTROLLERS)

.PHONY: replay
replay: ## the story of one seed: make replay SEED=42
	@[[ '$(SEED)' =~ ^[0-9]+$$ ]] || { echo 'which one? make replay SEED=42' >&2; exit 2; }
	@go run ./cmd/sim replay -seed $(SEED) -controllers $(CONTROLLERS)

.PHONY: bench
bench: ## benchmarks
	@go test -run '^$$' -bench '$(TEST)' -benchmem ./...

.PHONY: bench-store
bench-store: ## PostgreSQL under Plane against PostgreSQL under 0.5.x: docs/performance.md
	@go run ./scenarios/benchstore -part '$(PART)' -history '$(HISTORY)'

.PHONY: bench-dns
bench-dns: build ## the DNS receiver beside another name server (nsd), on one core
	@scripts/deps bench-dns
	@go build -o bin/dnsbench ./scripts/dnsbench
	@bin/dnsbench -plane bin/plane

.PHONY: fuzz
fuzz: ## every fuzzer, for FUZZTIME each
	@scripts/fuzz $(FUZZTIME)

.PHONY: schema
schema: ## docs/schema.md, from the comments in the database
	@go test -count=1 -run '^TestTheSchemaIsDocumented$$' ./adapters/postgres -update

.PHONY: lint
lint: $(linter) ## golangci-lint; .golangci.yml says what for
	@$(linter) run ./...

$(linter):
	@echo 'compiling golangci-lint $(lint_version), once: a minute or two'
	@mkdir -p .cache
	@go build -C tools -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: fmt
fmt:
	@bad=$$(gofmt -l .); [[ -z $$bad ]] || { printf 'gofmt -w these:\n%s\n' "$$bad" >&2; exit 1; }

.PHONY: vet
vet:
	@go vet ./...
