package registry

import (
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Rules are by what rules this version carries commands out; see RegistryCommand.rules.
const Rules = 1

// Common are the latest rules that all living nodes know, and a node that does not know this version's; "": all do.
func Common(reg *pb.Registry) (rules uint32, behind string) {
	rules = Rules
	for id, n := range reg.GetNodes() {
		if !n.GetDown() && (n.GetRules() < rules || n.GetRules() == rules && behind != "" && id < behind) {
			rules, behind = n.GetRules(), id
		}
	}
	return rules, behind
}

// Ruled is the command with the rules of all nodes in it, a copy where it has others. One that some node does not know of is refused:
// the nodes' registries would not be the same any more.
func Ruled(reg *pb.Registry, cmd *pb.RegistryCommand) (*pb.RegistryCommand, error) {
	rules, behind := Common(reg)
	switch cmd.GetBody().(type) {
	case *pb.RegistryCommand_ForgetOrigin, *pb.RegistryCommand_RevokeNode:
		if rules >= 1 {
			break
		}
		return nil, proto.Errorf(proto.Unavailable, "the node %q has an earlier version, which does not know this", behind)
	}
	if cmd.GetRules() != rules {
		cmd = copied(cmd)
		cmd.Rules = rules
	}
	return cmd, nil
}
