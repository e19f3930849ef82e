# `make help` lists what there is. Everything that takes long says so, and is quick the second time.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test images crds cluster cluster-down

help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## Kubernetes, the operator, a cluster of three nodes, searches, and a promotion under load
	@tests/demo.sh

demo-down: cluster-down ## Removes what `make demo` made

test: ## Everything: format, lints, unit and process tests, and the scenarios on Kubernetes
	@tests/run.sh

cluster: ## A Kubernetes cluster of three machines in Docker (kind), for demo and tests
	@tests/kind/up.sh

cluster-down: ## Removes that cluster
	@tests/kind/down.sh

images: ## The container images, loaded into the cluster if it runs
	@tests/images.sh

crds: ## Writes crds/ and the chart's copy from the operator's types
	cargo run --release --quiet -p vectorizer-operator -- crd > crds/vectorizerclusters.yaml.part
	mv crds/vectorizerclusters.yaml.part crds/vectorizerclusters.yaml
	cp crds/vectorizerclusters.yaml charts/vectorizer-operator/definitions/
