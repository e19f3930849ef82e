# `make help` lists what there is. Everything that takes long says so, and is quick the second time.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test sim mutants fuzz images crds cluster cluster-down bench

help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## Kubernetes, the operator, a cluster of three nodes, searches, and a promotion under load
	@tests/demo.sh

demo-down: cluster-down ## Removes what `make demo` made

test: ## Everything: format, lints, unit and process tests, and the scenarios on Kubernetes
	@tests/run.sh

SEEDS ?= 20000
FROM ?= 0

sim: ## The replication protocol under SEEDS=20000 simulated runs, from FROM=0 on; a failing one says how to repeat it
	@SIM_SEEDS=$(SEEDS) SIM_FROM=$(FROM) RUST_BACKTRACE=0 cargo test --release --locked --quiet \
		-p vectorizer-replication --lib -- --exact --nocapture sim::tests::whatever_happens_the_promises_hold

mutants: ## Deliberate defects, one at a time, each of which a test has to notice
	@tests/mutants.sh

fuzz: ## Fuzzing, each target for SECONDS=600; TARGET= frames, handshake, journal or snapshot for one alone
	@FUZZ_SECONDS="$(SECONDS)" FUZZ_TARGET="$(TARGET)" tests/fuzz.sh

cluster: ## A Kubernetes cluster of three machines in Docker (kind), for demo and tests
	@tests/kind/up.sh

cluster-down: ## Removes that cluster
	@tests/kind/down.sh

images: ## The container images, loaded into the cluster if it runs
	@tests/images.sh

crds: ## Writes crds/ and the chart's copy from the operator's types
	cargo run --release --locked --quiet -p vectorizer-operator -- crd > crds/vectorizerclusters.yaml.part
	mv crds/vectorizerclusters.yaml.part crds/vectorizerclusters.yaml
	cp crds/vectorizerclusters.yaml charts/vectorizer-operator/definitions/

bench: ## vectorizer beside Redis on this machine, about 20 minutes; QUICK=1 shows that it works
	@QUICK="$(QUICK)" ARGUMENTS="$(ARGUMENTS)" bench/run.sh
