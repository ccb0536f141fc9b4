# Everything that people do with the project. `make run` and `make test` also set up what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := build
GO_SOURCES := $(shell find cmd signal cascade cluster media hls proto -name '*.go' -not -name '*_test.go' 2>/dev/null) go.mod go.sum
C_SOURCES := $(shell find cmd/amphi-compositor -name '*.[ch]' 2>/dev/null)
WEB_SOURCES := $(shell find signal/web -path signal/web/node_modules -prune -o -path signal/web/dist -prune -o -type f -print 2>/dev/null)
WEB_STAMP := .cache/web-built

.PHONY: run build test lint bench lab soak proto web clean test-go test-links test-lab test-web test-e2e

run: build
	@exec bin/amphi dev $(ARGS)

build: bin/amphi bin/amphi-compositor

bin/amphi: $(GO_SOURCES) $(WEB_STAMP)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ ./cmd/amphi

bin/amphi-compositor: $(GO_SOURCES) $(C_SOURCES) .cache/setup-build
	CGO_ENABLED=1 go build -trimpath -ldflags '-s -w' -o $@ ./cmd/amphi-compositor

.cache/setup-build: deploy/setup
	@mkdir -p .cache && deploy/setup build && touch $@

.cache/setup-test: deploy/setup
	@mkdir -p .cache && deploy/setup test && touch $@

# The S3 server of tests, from a module of its own.
.cache/bin/versitygw: deploy/tools/go.mod
	@mkdir -p .cache/bin
	cd deploy/tools && go build -o ../../$@ github.com/versity/versitygw/cmd/versitygw

web: $(WEB_STAMP)

signal/web/node_modules/.package-lock.json: signal/web/package.json signal/web/package-lock.json
	cd signal/web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(WEB_STAMP): signal/web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd signal/web && npm run --silent build
	@mkdir -p .cache && touch $@

test: .cache/setup-test build test-go test-links test-lab test-web test-e2e

test-go: .cache/setup-test .cache/bin/versitygw $(WEB_STAMP)
	go test -race -timeout 15m ./...

# Tests of real time over emulated links: alone, and without the race detector, which would starve them.
test-links: .cache/setup-test
	go test -count=1 -timeout 10m -run 'Link|Viewers|PausedVideo' ./media

test-web: $(WEB_STAMP)
	cd signal/web && npm run --silent check && npm test --silent

test-e2e: .cache/setup-test .cache/bin/versitygw build
	cd signal/web && npm run --silent e2e

# Failures of a cluster of real nodes in network namespaces: a few of them, judged by what no machine excuses. Needs root.
# bin/amphi lab --short plays one of each kind and judges them by the targets, in some ten minutes.
test-lab: .cache/setup-test build
	bin/amphi lab --name test --sound --only 'kill -9: owner,kill -9: gateway,black hole both: leader,drain: edge,region cut' --json .cache/lab-test.json

# The whole matrix of failures: hours.
lab: build
	bin/amphi lab --json .cache/lab.json $(ARGS)

lint: $(WEB_STAMP)
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	cd signal/web && npm run --silent check

# The table of P figures; then H2 (CPU of a program), H4 to H6 (sync, joins and crashes), H1 and S4 (in real Chromium).
# With PEERS=1, instead, the P figures that can be compared beside another server's, which is installed into .cache.
ifdef PEERS
bench: build
	node cmd/amphi/bench.mjs --peers
else
bench: .cache/setup-test build
	node cmd/amphi/bench.mjs
	go test -run '^$$' -bench Program -benchtime 8x ./cmd/amphi-compositor
	go test -count=1 -v -run TestProgram ./cmd/amphi-compositor
	cd signal/web && node --test --test-reporter=spec e2e/latency.test.mjs
endif

# The long form of the registry's histories: 100,000 operations under faults, checked for linearizability; some minutes.
# Then an hour each of a program's memory, of its audio against its video, and of rooms that come and go on a cluster.
soak:
	AMPHI_SOAK=$${AMPHI_SOAK:-100000} go test -count=1 -v -timeout 60m -run 'TestLinearizable$$' ./cluster
	AMPHI_SOAK=$${AMPHI_SOAK_FOR:-1h} go test -count=1 -v -timeout 8h -run 'TestSoak|TestLipSyncForHours' ./cmd/amphi-compositor
	AMPHI_SOAK=$${AMPHI_SOAK_FOR:-1h} go test -count=1 -v -timeout 8h -run 'TestChurn$$' ./cmd/amphi

# Regenerates what is committed: Go by protoc (Debian's protobuf-compiler), TypeScript by protoc-gen-es.
proto: .cache/setup-test signal/web/node_modules/.package-lock.json
	@mkdir -p .cache/bin
	GOBIN=$(CURDIR)/.cache/bin go install google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
	PATH=$(CURDIR)/.cache/bin:$$PATH protoc -Iproto --go_out=. --go_opt=module=github.com/amphi-sfu/amphi --connect-go_out=. --connect-go_opt=module=github.com/amphi-sfu/amphi proto/amphi/v1/*.proto
	cd signal/web && npm run --silent gen

clean:
	rm -rf bin .cache signal/web/dist/* signal/web/node_modules
