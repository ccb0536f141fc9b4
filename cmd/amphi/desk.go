package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// deskEvery is how often a node looks at the streams that it makes for others.
	deskEvery = time.Second
	// unheard is after what time without a word of its room's owner a stream ends.
	unheard = 20 * time.Second
	// replacedFor is how long a program goes on that another one has replaced: until every edge knows of that.
	replacedFor = 3 * time.Second
	// skew is how many segments the clocks of two origins may differ by without a media sequence number coming twice.
	skew = 2
	// discontinuities is how many one program may have, as a power of two: the next one's numbers begin above.
	discontinuities = 14
)

// desk takes the orders of rooms' owners for streams that this node makes.
type desk struct {
	node    string
	streams *streams
	log     *slog.Logger
	// follow keeps a room open here; record is what the registry has of a stream.
	follow func(room string) (release func(), err error)
	record func(room, stream string) *amphiv1.StreamOrigin
	// next is the first media sequence number that a program has not used.
	next func(room, stream string) uint64
	// owned is told of an owner that has the stream go on. It does not block.
	owned func(room, stream, by string)

	turn sync.Mutex // one start or stop at a time

	mu   sync.Mutex // guards the field below
	jobs map[string]*job
}

// job is a stream that is made here. What may change is guarded by desk.mu.
type job struct {
	program  *amphiv1.StreamOrigin
	release  func()
	heard    time.Time // when the owner said something last
	replaced time.Time // since when another program is known to replace it
}

// carry does what an owner, the node by, empty: this one, wants. An error has a code.
func (d *desk) carry(by string, o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error) {
	answer, err := d.do(o)
	if err == nil && o.GetAction() != amphiv1.OriginOrder_ACTION_STOP {
		d.owned(o.GetRoom(), o.GetStream().GetName(), by)
	}
	return answer, err
}

func (d *desk) do(o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error) {
	if !proto.ValidRoomName(o.GetRoom()) || o.GetStream().GetName() == "" {
		return nil, proto.Errorf(proto.InvalidMessage, "the order names no stream")
	}
	switch o.GetAction() {
	case amphiv1.OriginOrder_ACTION_RUN:
		return d.run(o)
	case amphiv1.OriginOrder_ACTION_KEEP:
		return d.keep(o)
	case amphiv1.OriginOrder_ACTION_LAYOUT:
		answer, err := d.keep(o)
		if err == nil {
			d.streams.SetLayout(o.GetRoom(), o.GetStream())
		}
		return answer, err
	case amphiv1.OriginOrder_ACTION_STOP:
		d.stop(o.GetRoom(), o.GetStream().GetName(), o.GetEpoch())
		return &amphiv1.OriginAnswer{}, nil
	}
	return nil, proto.Errorf(proto.InvalidMessage, "the order is not known")
}

// run starts a stream, in place of an earlier program of it.
func (d *desk) run(o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error) {
	d.turn.Lock()
	defer d.turn.Unlock()
	room, stream := o.GetRoom(), o.GetStream().GetName()
	switch at := d.epoch(room, stream); {
	case at == o.GetEpoch():
		return d.keep(o)
	case at > o.GetEpoch():
		return nil, proto.Errorf(proto.Conflict, "the stream is at epoch %d", at)
	case at > 0:
		d.end(room, stream)
	}
	release, err := d.follow(room)
	if err != nil {
		return nil, err
	}
	info, err := d.streams.run(room, o.GetSettings(), o.GetStream(), after(o.GetBefore(), time.Now()))
	if err != nil {
		release()
		return nil, err
	}
	d.mu.Lock()
	d.jobs[registry.OriginKey(room, stream)] = &job{release: release, heard: time.Now(), program: &amphiv1.StreamOrigin{
		Room: room, Stream: stream, Node: d.node, Epoch: o.GetEpoch(), ProgramEpoch: info.Epoch, FirstMsn: info.FirstMSN,
		StartedMs: info.Started.UnixMilli(), SegmentMs: uint32(info.Segment.Milliseconds()), FirstDiscontinuity: &info.FirstDiscontinuity,
	}}
	d.mu.Unlock()
	return d.keep(o)
}

// after is what a program begins above that comes after another one, wherever that was.
func after(before *amphiv1.StreamOrigin, now time.Time) hls.After {
	if before.GetProgramEpoch() == 0 {
		return hls.After{}
	}
	// Not by the epoch: that begins above the ones of streams that are gone, and some players take 32 bits for this number.
	discontinuity := before.GetFirstDiscontinuity() + 1<<discontinuities
	if before.FirstDiscontinuity == nil {
		discontinuity = before.GetEpoch() << discontinuities
	}
	length := max(1, int64(before.GetSegmentMs()))
	ran := max(0, now.UnixMilli()-before.GetStartedMs())
	return hls.After{
		Epoch: before.GetProgramEpoch(), MSN: before.GetFirstMsn() + uint64((ran+length-1)/length) + skew,
		Discontinuity: discontinuity,
	}
}

// counted is what a program began with if it had used no more numbers than one in a segment's time, so that after leaves all that
// it has used. Each start of its compositor may take one more: it begins within the segment in which the one before ended.
func counted(p *amphiv1.StreamOrigin, next uint64, now time.Time) *amphiv1.StreamOrigin {
	thought := after(p, now).MSN - skew
	if next <= thought {
		return p
	}
	p = protobuf.Clone(p).(*amphiv1.StreamOrigin) // the one so far may have been told already
	p.FirstMsn += next - thought
	return p
}

// epoch is that of a stream that is made here; 0: it is not.
func (d *desk) epoch(room, stream string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j := d.jobs[registry.OriginKey(room, stream)]; j != nil {
		return j.program.GetEpoch()
	}
	return 0
}

// keep notes that the owner is there, and says how its stream does.
func (d *desk) keep(o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[registry.OriginKey(o.GetRoom(), o.GetStream().GetName())]
	if j == nil || j.program.GetEpoch() != o.GetEpoch() {
		return nil, proto.Errorf(proto.NotFound, "the stream does not run here at epoch %d", o.GetEpoch())
	}
	j.heard = time.Now()
	j.program = counted(j.program, d.next(o.GetRoom(), o.GetStream().GetName()), j.heard)
	return &amphiv1.OriginAnswer{Program: j.program, Stream: d.streams.state(o.GetRoom(), o.GetStream().GetName())}, nil
}

// stop ends a stream, unless it is of a later epoch.
func (d *desk) stop(room, stream string, epoch uint64) {
	d.turn.Lock()
	defer d.turn.Unlock()
	if at := d.epoch(room, stream); at > 0 && at <= epoch {
		d.end(room, stream)
	}
}

// end ends a stream that is made here, in turn.
func (d *desk) end(room, stream string) {
	key := registry.OriginKey(room, stream)
	d.mu.Lock()
	j := d.jobs[key]
	delete(d.jobs, key)
	d.mu.Unlock()
	d.streams.Stop(room, stream)
	j.release()
}

// current says that no other program has replaced the stream's that runs here.
func (d *desk) current(room, stream string) bool {
	at := d.epoch(room, stream)
	return at == 0 || d.record(room, stream).GetEpoch() <= at
}

// watch ends the streams that were replaced or forgotten, until ctx ends; then it ends all.
func (d *desk) watch(ctx context.Context) error {
	t := time.NewTicker(deskEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-t.C:
			for _, j := range d.over(now) {
				d.log.Info("a stream is not made here any more", "room", j.GetRoom(), "stream", j.GetStream(), "epoch", j.GetEpoch())
				d.stop(j.GetRoom(), j.GetStream(), j.GetEpoch())
			}
		}
	}
	d.mu.Lock()
	jobs := make([]*amphiv1.StreamOrigin, 0, len(d.jobs))
	for _, j := range d.jobs {
		jobs = append(jobs, j.program)
	}
	d.mu.Unlock()
	for _, j := range jobs {
		d.stop(j.GetRoom(), j.GetStream(), j.GetEpoch())
	}
	return nil
}

// over lists the streams that are to end.
func (d *desk) over(now time.Time) (list []*amphiv1.StreamOrigin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.jobs {
		p := j.program
		if d.record(p.GetRoom(), p.GetStream()).GetEpoch() <= p.GetEpoch() {
			j.replaced = time.Time{}
		} else if j.replaced.IsZero() {
			j.replaced = now
		}
		if now.Sub(j.heard) > unheard || !j.replaced.IsZero() && now.Sub(j.replaced) > replacedFor {
			list = append(list, p)
		}
	}
	return list
}

// answerOrder answers another node, the owner of a room.
func (d *desk) answerOrder(_ context.Context, from string, question []byte) ([]byte, error) {
	o := &amphiv1.OriginOrder{}
	if err := protobuf.Unmarshal(question, o); err != nil {
		return nil, proto.Errorf(proto.InvalidMessage, "the order makes no sense")
	}
	answer, err := d.carry(from, o)
	if err != nil {
		return nil, err
	}
	return protobuf.Marshal(answer)
}
