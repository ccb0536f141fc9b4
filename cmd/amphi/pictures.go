package main

import (
	"fmt"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// picture finds an uploaded picture for a stream of this node.
func (n *Node) picture(name string) (key string, data []byte, ok bool) {
	var p *amphiv1.Picture
	n.registry.Read(func(r *amphiv1.Registry) { p = r.GetPictures()[name] })
	if p == nil {
		return "", nil, false
	}
	return fmt.Sprintf("%s@%d", name, p.GetUpdatedMs()), p.GetData(), true
}
