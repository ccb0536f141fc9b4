package validate

// Rule names a rule that is applied.
type Rule string

// The rules, in the order of the draft.
const (
	ruleText         Rule = "text"
	ruleKind         Rule = "kind"
	ruleAttributes   Rule = "attributes"
	ruleStart        Rule = "first-line"
	ruleVersion      Rule = "version"
	ruleOnce         Rule = "once"
	ruleIndependent  Rule = "independent"
	ruleTarget       Rule = "target-duration"
	ruleSequence     Rule = "media-sequence"
	ruleDiscontinue  Rule = "discontinuity-sequence"
	ruleEnd          Rule = "end"
	ruleType         Rule = "playlist-type"
	rulePartInfo     Rule = "part-inf"
	ruleControl      Rule = "server-control"
	ruleInf          Rule = "extinf"
	ruleMap          Rule = "map"
	ruleDate         Rule = "date"
	rulePart         Rule = "part"
	rulePartTarget   Rule = "part-target"
	rulePartParent   Rule = "part-parent"
	ruleRange        Rule = "daterange"
	ruleSkip         Rule = "skip"
	ruleHint         Rule = "preload-hint"
	ruleReport       Rule = "rendition-report"
	ruleMultivariant Rule = "multivariant"
	ruleMedia        Rule = "rendition"
	ruleGroup        Rule = "group"
	ruleBandwidth    Rule = "bandwidth"
	ruleCodecs       Rule = "codecs"
	ruleResolution   Rule = "resolution"
	ruleContinuous   Rule = "continuous"
	ruleFragment     Rule = "fragment"
	ruleCaptions     Rule = "captions"
	ruleChange       Rule = "change"
	ruleTimely       Rule = "timely"
	ruleWindow       Rule = "window"
	rulePartsKept    Rule = "parts-kept"
	ruleAligned      Rule = "aligned"
	ruleBlocking     Rule = "blocking"
	ruleDelta        Rule = "delta"
	ruleMissing      Rule = "missing"
)

type about struct{ section, text string }

// rules says for each rule where it comes from and what it wants.
var rules = map[Rule]about{
	ruleText:         {"4.1", "a playlist is UTF-8 without byte order mark and control characters"},
	ruleKind:         {"4.1", "a playlist is a media playlist or a multivariant playlist, not both"},
	ruleAttributes:   {"4.2", "attribute lists are well-formed and name no attribute twice"},
	ruleStart:        {"4.4.1.1", "the first line is #EXTM3U"},
	ruleVersion:      {"4.4.1.2", "EXT-X-VERSION is high enough for what is used (section 8)"},
	ruleOnce:         {"4.4.3", "a tag about the whole playlist appears once"},
	ruleIndependent:  {"4.4.2.1", "segments of EXT-X-INDEPENDENT-SEGMENTS, and parts that are INDEPENDENT, begin with a keyframe"},
	ruleTarget:       {"4.4.3.1", "EXT-X-TARGETDURATION is there, never changes, and no rounded EXTINF is above it"},
	ruleSequence:     {"4.4.3.2", "the media sequence number never goes back and grows by what was removed"},
	ruleDiscontinue:  {"4.4.3.3", "the discontinuity sequence number never goes back and grows by the discontinuities removed"},
	ruleEnd:          {"4.4.3.4", "nothing follows EXT-X-ENDLIST, and nothing is added later"},
	ruleType:         {"4.4.3.5", "an EVENT playlist loses nothing; the type does not change"},
	rulePartInfo:     {"4.4.3.7", "EXT-X-PART-INF is there where parts are, and its PART-TARGET does not change"},
	ruleControl:      {"4.4.3.8", "PART-HOLD-BACK is two, HOLD-BACK three and CAN-SKIP-UNTIL six targets at least"},
	ruleInf:          {"4.4.4.1", "EXTINF is as long as the segment"},
	ruleMap:          {"4.4.4.5", "every fMP4 segment has an EXT-X-MAP in force"},
	ruleDate:         {"4.4.4.6", "dates go on by EXTINF and by the media's own times, alike in all playlists"},
	rulePart:         {"4.4.4.9", "EXT-X-PART has URI and DURATION, and its part is that long"},
	rulePartTarget:   {"4.4.4.9", "no part is longer than PART-TARGET, nor shorter than 85 % of it, save the last, independent ones and gaps"},
	rulePartParent:   {"4.4.4.9", "parts together are their segment"},
	ruleRange:        {"4.4.5.1", "EXT-X-DATERANGE has ID and START-DATE, ends after it begins, and never changes what it said"},
	ruleSkip:         {"4.4.5.2", "EXT-X-SKIP stands in answers to _HLS_skip only and skips what is older than CAN-SKIP-UNTIL"},
	ruleHint:         {"4.4.5.3", "the part hinted at is the next one, or a discontinuity comes"},
	ruleReport:       {"4.4.5.4", "every other rendition is reported with LAST-MSN and LAST-PART"},
	ruleMultivariant: {"4.4.6", "a multivariant playlist lists variants"},
	ruleMedia:        {"4.4.6.1", "EXT-X-MEDIA is complete and its name is unique in its group"},
	ruleBandwidth:    {"4.4.6.2", "BANDWIDTH bounds the peak and AVERAGE-BANDWIDTH the average bit rate of variant and renditions"},
	ruleCodecs:       {"4.4.6.2", "CODECS names the formats of the init sections"},
	ruleResolution:   {"4.4.6.2", "RESOLUTION and FRAME-RATE are those of the pictures"},
	ruleGroup:        {"4.4.6.2.1", "groups that a variant names exist"},
	ruleContinuous:   {"3", "decode times continue from object to object, but for discontinuities"},
	ruleFragment:     {"3.1.2", "an init section has ftyp and moov, a part moof and mdat of one track with a tfdt"},
	ruleCaptions:     {"3.1.4", "a WebVTT segment has X-TIMESTAMP-MAP, and cues that belong there"},
	ruleChange:       {"6.2.1", "segments are added at the end, removed at the beginning, and never changed"},
	ruleTimely:       {"6.2.2", "a live playlist has something new within 1.5 target durations"},
	ruleWindow:       {"6.2.2", "nothing is removed that leaves less than three target durations"},
	rulePartsKept:    {"6.2.2", "parts are listed for three target durations from the end"},
	ruleAligned:      {"6.2.4", "variants have the same times and discontinuities under the same numbers"},
	ruleDelta:        {"6.2.5.1", "a delta update and the playlist before it make the playlist"},
	ruleBlocking:     {"6.2.5.2", "a blocking reload is answered with what was asked for"},
	ruleMissing:      {"6.2.2", "what a playlist lists can be fetched"},
}

// Section is the rule's section in RFC 8216bis.
func (r Rule) Section() string { return rules[r].section }

// Text says what the rule wants.
func (r Rule) Text() string { return rules[r].text }
