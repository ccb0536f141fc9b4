package main

import "github.com/amphi-sfu/amphi/cmd/amphi/internal/nodefile"

// serveConfig is what the file of `amphi serve --config` says.
type serveConfig = nodefile.Config

// loadServeConfig reads the file; the error lists all that is wrong with it, by line and key.
func loadServeConfig(path string) (serveConfig, error) { return nodefile.Load(path) }
