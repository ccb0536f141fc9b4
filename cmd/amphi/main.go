// Command amphi is the node daemon, the one-process platform for development, the operator's CLI and the load generator.
package main

func main() {}
