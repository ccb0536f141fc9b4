package room

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// Bounds of a session's outputs.
const (
	// MaxRecordings and MaxPushes run at the same time.
	MaxRecordings = 4
	MaxPushes     = 8
	// maxOutputs are remembered; of those that have ended the oldest go.
	maxOutputs = 64
	// maxFilter bounds each list of a TrackFilter.
	maxFilter = 100
)

// outputsView is the room's outputs as their events tell them.
type outputsView struct {
	// list is in the order in which they were started.
	list []*pb.Output
	// sealed are the encrypted URLs of pushes, by output, while these may still be needed.
	sealed map[string][]byte
}

func newOutputsView(st *pb.RoomState) outputsView {
	v := outputsView{list: slices.Clone(st.GetOutputs()), sealed: map[string][]byte{}}
	for id, url := range st.GetSealedUrls() {
		v.sealed[id] = url
	}
	return v
}

func (v *outputsView) index(id string) int {
	return slices.IndexFunc(v.list, func(o *pb.Output) bool { return o.GetId() == id })
}

func (v *outputsView) apply(e *pb.OutputChanged) {
	o := e.GetOutput()
	if len(e.GetSealedUrl()) > 0 {
		v.sealed[o.GetId()] = e.GetSealedUrl()
	}
	if o.GetState() == pb.OutputState_OUTPUT_STATE_STOPPED {
		delete(v.sealed, o.GetId())
	}
	if i := v.index(o.GetId()); i >= 0 {
		v.list[i] = o
		return
	}
	v.list = append(v.list, o)
	if len(v.list) <= maxOutputs {
		return
	}
	if i := slices.IndexFunc(v.list, func(o *pb.Output) bool { return !Working(o) }); i >= 0 {
		delete(v.sealed, v.list[i].GetId())
		v.list = slices.Delete(v.list, i, i+1)
	}
}

// sealedURLs is nil where there are none, as in a snapshot that came over the wire.
func (v *outputsView) sealedURLs() map[string][]byte {
	if len(v.sealed) == 0 {
		return nil
	}
	all := make(map[string][]byte, len(v.sealed))
	for id, url := range v.sealed {
		all[id] = url
	}
	return all
}

func (v *outputsView) clear() {
	v.list = nil
	clear(v.sealed)
}

// Working tells whether an output has not ended.
func Working(o *pb.Output) bool {
	switch o.GetState() {
	case pb.OutputState_OUTPUT_STATE_STARTING, pb.OutputState_OUTPUT_STATE_ACTIVE,
		pb.OutputState_OUTPUT_STATE_PAUSED, pb.OutputState_OUTPUT_STATE_RETRYING:
		return true
	}
	return false
}

// Shown is an event as clients may see it: without what only nodes need.
func Shown(ev *pb.Event) *pb.Event {
	changed := ev.GetOutputChanged()
	if len(changed.GetSealedUrl()) == 0 {
		return ev
	}
	return &pb.Event{Seq: ev.GetSeq(), TimeMs: ev.GetTimeMs(),
		Body: &pb.Event_OutputChanged{OutputChanged: &pb.OutputChanged{Output: changed.GetOutput(), FiguresOnly: changed.GetFiguresOnly()}}}
}

// Public is a template as clients may see it: without what only nodes need.
func Public(t *pb.Template) *pb.Template {
	if !slices.ContainsFunc(t.GetDestinations(), func(d *pb.Destination) bool { return len(d.GetSealedUrl()) > 0 }) {
		return t
	}
	t = gproto.Clone(t).(*pb.Template)
	for _, d := range t.GetDestinations() {
		d.SealedUrl = nil
	}
	return t
}

// SealedURL is the encrypted URL of a push; nil where it is of no use any more.
func (s *State) SealedURL(outputID string) []byte { return s.outputs.sealed[outputID] }

// controlOutput notes what is wished for recordings and pushes; the node that makes them reports how it goes.
func (c *call) controlOutput(w *pb.ControlOutput) (*pb.Result, error) {
	if w.GetAction() == pb.ControlOutput_ACTION_START {
		o, err := startOutput(c, w)
		if err != nil {
			return nil, err
		}
		return outputsResult(o), nil
	}
	change, ok := outputActions[w.GetAction()]
	if !ok {
		return nil, proto.Errorf(proto.InvalidArgument, "the action is missing")
	}
	targets, err := outputTargets(c, w)
	if err != nil {
		return nil, err
	}
	var now []*pb.Output
	for _, o := range targets {
		next, err := change(c, o)
		if err != nil {
			if w.GetId() != "" {
				return nil, err
			}
			continue
		}
		now = append(now, changeOutput(c, c.outputs.list[c.outputs.index(o.GetId())], next, nil))
	}
	return outputsResult(now...), nil
}

func outputsResult(outputs ...*pb.Output) *pb.Result {
	return &pb.Result{Body: &pb.Result_ControlOutput{ControlOutput: &pb.ControlOutputResult{Outputs: outputs}}}
}

// outputActions tell the state in which an action leaves an output; an error says that it cannot be done.
var outputActions = map[pb.ControlOutput_Action]func(*call, *pb.Output) (pb.OutputState, error){
	pb.ControlOutput_ACTION_STOP: func(_ *call, o *pb.Output) (pb.OutputState, error) {
		if !Working(o) {
			return o.GetState(), nil
		}
		return pb.OutputState_OUTPUT_STATE_STOPPED, nil
	},
	pb.ControlOutput_ACTION_PAUSE: func(_ *call, o *pb.Output) (pb.OutputState, error) {
		if o.GetKind() == pb.OutputKind_OUTPUT_KIND_PUSH {
			return 0, proto.Errorf(proto.InvalidArgument, "a push cannot be paused")
		}
		return pb.OutputState_OUTPUT_STATE_PAUSED, stillWorks(o)
	},
	pb.ControlOutput_ACTION_RESUME: func(_ *call, o *pb.Output) (pb.OutputState, error) {
		if o.GetState() != pb.OutputState_OUTPUT_STATE_PAUSED {
			return o.GetState(), stillWorks(o)
		}
		return pb.OutputState_OUTPUT_STATE_STARTING, nil
	},
	pb.ControlOutput_ACTION_RETRY: retryOutput,
}

func stillWorks(o *pb.Output) error {
	if !Working(o) {
		return proto.Errorf(proto.Conflict, "it has ended")
	}
	return nil
}

func retryOutput(c *call, o *pb.Output) (pb.OutputState, error) {
	if o.GetKind() != pb.OutputKind_OUTPUT_KIND_PUSH {
		return 0, proto.Errorf(proto.InvalidArgument, "only a push can be tried again")
	}
	switch o.GetState() {
	case pb.OutputState_OUTPUT_STATE_RETRYING:
		return pb.OutputState_OUTPUT_STATE_STARTING, nil
	case pb.OutputState_OUTPUT_STATE_FAILED:
		if c.working(pb.OutputKind_OUTPUT_KIND_PUSH) >= MaxPushes {
			return 0, proto.Errorf(proto.LimitExceeded, "%d pushes run already", MaxPushes)
		}
		sealed := c.outputs.sealed[o.GetId()]
		if sealed == nil || c.sameOutput(o, sealed) != nil {
			return 0, proto.Errorf(proto.Conflict, "its URL is not kept any more, or another push goes there")
		}
		settings, err := streamSettings(&c.view, o.GetStream())
		if err != nil {
			return 0, err
		}
		started := startStream(c, settings)
		changeOutput(c, o, pb.OutputState_OUTPUT_STATE_STARTING, nil)
		if started {
			autoStart(c, o.GetStream())
		}
		return pb.OutputState_OUTPUT_STATE_STARTING, nil
	}
	return o.GetState(), stillWorks(o)
}

// outputTargets finds what an action is about: one output, or all of a kind that work.
func outputTargets(c *call, w *pb.ControlOutput) ([]*pb.Output, error) {
	if w.GetId() != "" {
		i := c.outputs.index(w.GetId())
		if i < 0 || w.GetKind() != pb.OutputKind_OUTPUT_KIND_UNSPECIFIED && pushes(w.GetKind()) != pushes(c.outputs.list[i].GetKind()) {
			return nil, proto.Errorf(proto.NotFound, "this session has no such output")
		}
		o := c.outputs.list[i]
		return []*pb.Output{o}, mayControlOutput(c, o.GetKind())
	}
	if err := mayControlOutput(c, w.GetKind()); err != nil {
		return nil, err
	}
	var all []*pb.Output
	for _, o := range c.outputs.list {
		if Working(o) && pushes(o.GetKind()) == pushes(w.GetKind()) && (w.GetStream() == "" || w.GetStream() == o.GetStream()) {
			all = append(all, o)
		}
	}
	return all, nil
}

func pushes(k pb.OutputKind) bool { return k == pb.OutputKind_OUTPUT_KIND_PUSH }

func mayControlOutput(c *call, k pb.OutputKind) error {
	switch k {
	case pb.OutputKind_OUTPUT_KIND_PUSH:
		if !c.may.GetControlPush() {
			return denied("control pushes")
		}
	case pb.OutputKind_OUTPUT_KIND_RECORDING, pb.OutputKind_OUTPUT_KIND_TRACKS:
		if !c.may.GetControlRecording() {
			return denied("control recordings")
		}
	default:
		return proto.Errorf(proto.InvalidArgument, "the kind of output is missing or unknown")
	}
	return nil
}

// startOutput adds an output, and starts its stream where that does not run. One that works already is answered as it is.
func startOutput(c *call, w *pb.ControlOutput) (*pb.Output, error) {
	o, sealed, err := wishedOutput(c, w)
	if err != nil {
		return nil, err
	}
	if err := mayControlOutput(c, o.GetKind()); err != nil {
		return nil, err
	}
	if err := Readable(c.template); err != nil {
		return nil, err
	}
	settings, err := completeOutput(c, o, sealed)
	if err != nil {
		return nil, err
	}
	if same := c.sameOutput(o, sealed); same != nil {
		return same, nil
	}
	if most := limitOf(o.GetKind()); c.working(o.GetKind()) >= most {
		return nil, proto.Errorf(proto.LimitExceeded, "%d run already in this room", most)
	}
	started := settings != nil && startStream(c, settings)
	o = addOutput(c, o, sealed, c.by())
	if started {
		// After it: so there is a place for it, and what the template starts of the same kind is not made twice.
		autoStart(c, o.GetStream())
	}
	return o, nil
}

// wishedOutput is what is to be started, and the encrypted URL.
func wishedOutput(c *call, w *pb.ControlOutput) (*pb.Output, []byte, error) {
	if name := w.GetDestination(); name != "" {
		all := c.template.GetDestinations()
		i := slices.IndexFunc(all, func(d *pb.Destination) bool { return d.GetName() == name })
		if i < 0 {
			return nil, nil, proto.Errorf(proto.NotFound, "this room has no destination %q", clip(name))
		}
		return destined(all[i]), all[i].GetSealedUrl(), nil
	}
	o := &pb.Output{Kind: w.GetKind(), Stream: w.GetStream(), Variant: w.GetVariant()}
	switch w.GetKind() {
	case pb.OutputKind_OUTPUT_KIND_PUSH:
		o.Url = w.GetUrl()
	case pb.OutputKind_OUTPUT_KIND_TRACKS:
		o.Tracks = w.GetTracks()
	}
	return o, w.GetSealedUrl(), nil
}

func destined(d *pb.Destination) *pb.Output {
	return &pb.Output{Kind: d.GetKind(), Stream: d.GetStream(), Url: d.GetUrl(), Variant: d.GetVariant(), Tracks: d.GetTracks(), Destination: d.GetName()}
}

// completeOutput checks an output and answers the settings of its stream; nil: it needs none.
func completeOutput(c *call, o *pb.Output, sealed []byte) (*pb.StreamSettings, error) {
	if o.GetKind() == pb.OutputKind_OUTPUT_KIND_TRACKS {
		o.Stream, o.Variant = "", ""
		return nil, checkFilter(&c.view, o.GetTracks())
	}
	if o.GetKind() == pb.OutputKind_OUTPUT_KIND_PUSH {
		switch {
		case o.GetUrl() == "" || len(sealed) == 0:
			return nil, proto.Errorf(proto.InvalidArgument, "the URL is missing")
		case len(o.GetUrl()) > proto.MaxPushURL || len(sealed) > 2*proto.MaxPushURL || !utf8.ValidString(o.GetUrl()):
			return nil, proto.Errorf(proto.InvalidArgument, "the URL is longer than %d bytes or not UTF-8", proto.MaxPushURL)
		}
	}
	settings, err := streamSettings(&c.view, o.GetStream())
	if err != nil {
		return nil, err
	}
	o.Stream = settings.GetName()
	if v := o.GetVariant(); v != "" && !slices.ContainsFunc(settings.GetVariants(), func(s *pb.StreamVariant) bool { return s.GetName() == v }) {
		return nil, proto.Errorf(proto.NotFound, "the stream %q has no variant %q", o.GetStream(), clip(v))
	}
	return settings, nil
}

func checkFilter(v *view, f *pb.TrackFilter) error {
	for _, list := range [][]string{f.GetRoles(), f.GetPeers(), f.GetSources()} {
		if len(list) > maxFilter {
			return proto.Errorf(proto.InvalidArgument, "more than %d entries in a filter", maxFilter)
		}
		for _, s := range list {
			if len(s) > proto.MaxUserID || !utf8.ValidString(s) {
				return proto.Errorf(proto.InvalidArgument, "an entry of the filter is too long or not UTF-8")
			}
		}
	}
	for _, r := range f.GetRoles() {
		if v.roles[r] == nil {
			return proto.Errorf(proto.NotFound, "this room has no role %q", clip(r))
		}
	}
	return nil
}

// sameOutput finds one that works and makes the same; nil: there is none.
func (c *call) sameOutput(o *pb.Output, sealed []byte) *pb.Output {
	for _, have := range c.outputs.list {
		if Working(have) && have.GetKind() == o.GetKind() && have.GetStream() == o.GetStream() && have.GetVariant() == o.GetVariant() &&
			have.GetUrl() == o.GetUrl() && bytes.Equal(c.outputs.sealed[have.GetId()], sealed) && gproto.Equal(have.GetTracks(), o.GetTracks()) {
			return have
		}
	}
	return nil
}

// working counts the outputs of a kind that have not ended; recordings of streams and of tracks count together.
func (c *call) working(k pb.OutputKind) int {
	n := 0
	for _, o := range c.outputs.list {
		if Working(o) && pushes(o.GetKind()) == pushes(k) {
			n++
		}
	}
	return n
}

func limitOf(k pb.OutputKind) int {
	if pushes(k) {
		return MaxPushes
	}
	return MaxRecordings
}

func addOutput(c *call, o *pb.Output, sealed []byte, by string) *pb.Output {
	o.Id, o.State, o.StartedBy = c.cfg.IDs(proto.OutputPrefix), pb.OutputState_OUTPUT_STATE_STARTING, by
	o.StartedMs, o.StateMs = c.now.UnixMilli(), c.now.UnixMilli()
	emitOutput(c, o, sealed)
	return o
}

// autoStart adds the outputs that the template starts with a stream, as far as there is room for them.
func autoStart(c *call, stream string) {
	for _, d := range c.template.GetDestinations() {
		o := destined(d)
		if !d.GetAutoStart() || c.working(o.GetKind()) >= limitOf(o.GetKind()) {
			continue
		}
		if with := d.GetStream(); with != stream && (with != "" || stream != DefaultStream) {
			continue
		}
		if _, err := completeOutput(c, o, d.GetSealedUrl()); err != nil || c.sameOutput(o, d.GetSealedUrl()) != nil {
			continue
		}
		addOutput(c, o, d.GetSealedUrl(), "")
	}
}

// endOutputs ends what was made of a stream that has ended.
func endOutputs(c *call, stream, why string) {
	for _, o := range slices.Clone(c.outputs.list) {
		if !Working(o) || o.GetStream() != stream {
			continue
		}
		o = cloneOutput(o)
		o.State, o.StateMs, o.Failure = pb.OutputState_OUTPUT_STATE_STOPPED, c.now.UnixMilli(), why
		emitOutput(c, o, nil)
	}
}

// outputReport takes a node's word how an output does. What was stopped since stays so, but its end may fail; paused is what
// people say, not nodes.
func (c *call) outputReport(r *pb.OutputReport) (*pb.Result, error) {
	if c.from.Management || c.from.PeerID != "" || c.from.Node == "" {
		return nil, proto.Errorf(proto.PermissionDenied, "only nodes report outputs")
	}
	said := r.GetOutput()
	i := c.outputs.index(said.GetId())
	if i < 0 {
		return nil, proto.Errorf(proto.NotFound, "this session has no such output")
	}
	if _, ok := pb.OutputState_name[int32(said.GetState())]; !ok || said.GetState() == pb.OutputState_OUTPUT_STATE_UNSPECIFIED {
		return nil, proto.Errorf(proto.InvalidArgument, "the state is unknown")
	}
	if len(said.GetFailure()) > maxReason || !utf8.ValidString(said.GetFailure()) {
		return nil, proto.Errorf(proto.InvalidArgument, "the failure is longer than %d bytes or not UTF-8", maxReason)
	}
	had := c.outputs.list[i]
	next := reported(had.GetState(), said.GetState())
	o := cloneOutput(had)
	o.Bytes, o.Retries = max(had.GetBytes(), said.GetBytes()), max(had.GetRetries(), said.GetRetries())
	if next != had.GetState() || next == said.GetState() && Working(had) {
		o.Failure = said.GetFailure()
	}
	if next != had.GetState() {
		o.State, o.StateMs = next, c.now.UnixMilli()
	}
	if next == pb.OutputState_OUTPUT_STATE_ACTIVE && o.GetActiveMs() == 0 {
		o.ActiveMs = c.now.UnixMilli()
	}
	if !gproto.Equal(o, had) {
		c.emit(&pb.Event{Body: &pb.Event_OutputChanged{OutputChanged: &pb.OutputChanged{Output: o, FiguresOnly: next == had.GetState()}}})
	}
	return nil, nil
}

// reported is the state of an output after a report.
func reported(had, said pb.OutputState) pb.OutputState {
	const stopped, failed, paused = pb.OutputState_OUTPUT_STATE_STOPPED, pb.OutputState_OUTPUT_STATE_FAILED, pb.OutputState_OUTPUT_STATE_PAUSED
	ended := said == stopped || said == failed
	switch {
	case had == failed, had == stopped && said != failed:
		return had
	case had == paused && !ended, said == paused:
		return had
	}
	return said
}

// changeOutput gives an output another state.
func changeOutput(c *call, o *pb.Output, state pb.OutputState, sealed []byte) *pb.Output {
	if o.GetState() == state {
		return o
	}
	o = cloneOutput(o)
	o.State, o.StateMs, o.Failure = state, c.now.UnixMilli(), ""
	emitOutput(c, o, sealed)
	return o
}

func emitOutput(c *call, o *pb.Output, sealed []byte) {
	c.emit(&pb.Event{Body: &pb.Event_OutputChanged{OutputChanged: &pb.OutputChanged{Output: o, SealedUrl: sealed}}})
}

func cloneOutput(o *pb.Output) *pb.Output { return gproto.Clone(o).(*pb.Output) }
