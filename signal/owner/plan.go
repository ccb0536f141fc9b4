package owner

import (
	"slices"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Planner says over which nodes a room's tracks travel; nil: before stays as it is. It must be quick.
type Planner interface {
	Plan(room string, before *amphiv1.RelayPlan, members []string, homes map[string]string) *amphiv1.RelayPlan
}

const (
	// planAfter gathers changes into one plan; planEvery is how often it is looked at without any: loads and distances change.
	planAfter = 100 * time.Millisecond
	planEvery = 5 * time.Second
)

// planning is a room's relay plan and when it was made.
type planning struct {
	plan *amphiv1.RelayPlan
	at   time.Time
	// due: nodes or publishers have changed since.
	due bool
}

// replan makes the plan anew when it is time, and answers when to come again. Without a lease plans stay as they are.
func (r *owned) replan(now time.Time) time.Time {
	if r.owner.deps.Planner == nil || !r.leased {
		return now.Add(planEvery)
	}
	wait := planEvery
	if r.plan.due {
		wait = planAfter
	}
	if next := r.plan.at.Add(wait); now.Before(next) {
		return next
	}
	r.plan.at, r.plan.due = now, false
	var members []string
	for name, n := range r.nodes {
		if n.attached {
			members = append(members, name)
		}
	}
	slices.Sort(members)
	made := r.owner.deps.Planner.Plan(r.name, r.plan.plan, members, r.state.Publishers())
	if made != nil {
		made.Version = r.plan.plan.GetVersion() + 1
		r.plan.plan = made
		if u := r.mirror.added(); u != nil {
			u.Plan = made
		}
		for _, name := range members {
			r.sendPlan(name)
		}
	}
	return now.Add(planEvery)
}

// sendPlan tells a node the present plan.
func (r *owned) sendPlan(to string) {
	if r.plan.plan != nil {
		r.send(to, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_RelayPlan{RelayPlan: r.plan.plan}})
	}
}
