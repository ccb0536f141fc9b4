package media

// warmed is how many subscribers are made ready at a time: about as many misses as a processor
// has under way, and few enough that all stays in its nearest caches.
const warmed = 16

// warm reads what a packet to these subscribers will touch. With tens of them nothing of that
// is in the processor's cache when a packet comes, and each part is found by way of another:
// DownTrack, outbound, estimator, its history. One miss after the other they take longer than
// the work; read for some subscribers at once, level by level, they are waited for together.
func (w *worker) warm(list []*DownTrack) {
	sum := uint64(0)
	for _, dt := range list {
		sum += uint64(dt.sourcePT) + uint64(dt.cursor.timestamp) + dt.counts.packets + dt.used.Near()
	}
	for _, dt := range list {
		sum += dt.seqs.Next() + dt.out.sent.bytes + uint64(dt.out.pacer.rate)
	}
	for _, dt := range list {
		if o := dt.out; o.bw.estimator != nil {
			sum += o.bw.estimator.Near()
		}
	}
	w.warmth += sum // or the reads would be left out
}
