package av

/*
#include "av.h"
#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
#include <libswresample/swresample.h>
#include <opus.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  AVCodecContext *ctx;
  AVPacket *pkt;
  AVFrame *f;
  SwrContext *swr;
  int rate, channels, fmt;
} amphi_aac_decoder;

static void amphi_aac_decoder_close(amphi_aac_decoder *d) {
  if (!d) return;
  swr_free(&d->swr);
  av_frame_free(&d->f);
  av_packet_free(&d->pkt);
  avcodec_free_context(&d->ctx);
  free(d);
}

static int amphi_aac_decoder_open(amphi_aac_decoder **out, const uint8_t *config, int n) {
  const AVCodec *codec = avcodec_find_decoder_by_name("aac");
  if (!codec) return AVERROR_DECODER_NOT_FOUND;
  amphi_aac_decoder *d = calloc(1, sizeof *d);
  if (!d) return AVERROR(ENOMEM);
  int r = AVERROR(ENOMEM);
  d->ctx = avcodec_alloc_context3(codec);
  d->pkt = av_packet_alloc();
  d->f = av_frame_alloc();
  if (!d->ctx || !d->pkt || !d->f) goto fail;
  d->ctx->thread_count = 1;
  d->ctx->extradata = av_mallocz(n + AV_INPUT_BUFFER_PADDING_SIZE);
  if (!d->ctx->extradata) goto fail;
  memcpy(d->ctx->extradata, config, n);
  d->ctx->extradata_size = n;
  if ((r = avcodec_open2(d->ctx, codec, NULL)) < 0) goto fail;
  *out = d;
  return 0;
fail:
  amphi_aac_decoder_close(d);
  return r;
}

// resampler makes the resampler fit the frame.
static int resampler(amphi_aac_decoder *d) {
  AVFrame *f = d->f;
  if (d->swr && d->rate == f->sample_rate && d->channels == f->ch_layout.nb_channels && d->fmt == f->format) return 0;
  swr_free(&d->swr);
  AVChannelLayout stereo = AV_CHANNEL_LAYOUT_STEREO, in = {0};
  int r = f->ch_layout.order == AV_CHANNEL_ORDER_UNSPEC ? 0 : av_channel_layout_copy(&in, &f->ch_layout);
  if (f->ch_layout.order == AV_CHANNEL_ORDER_UNSPEC) av_channel_layout_default(&in, f->ch_layout.nb_channels);
  if (r >= 0)
    r = swr_alloc_set_opts2(&d->swr, &stereo, AV_SAMPLE_FMT_FLT, 48000, &in, f->format, f->sample_rate, 0, NULL);
  av_channel_layout_uninit(&in);
  if (r >= 0) r = swr_init(d->swr);
  if (r < 0) {
    swr_free(&d->swr);
    return r;
  }
  d->rate = f->sample_rate;
  d->channels = f->ch_layout.nb_channels;
  d->fmt = f->format;
  return 0;
}

// Decodes one raw data block, followed by padding, into at most room samples of interleaved stereo at 48 kHz. Returns how many, or an error.
static int amphi_aac_decode(amphi_aac_decoder *d, uint8_t *data, int n, float *out, int room) {
  d->pkt->data = data;
  d->pkt->size = n;
  int r = avcodec_send_packet(d->ctx, d->pkt);
  d->pkt->data = NULL;
  d->pkt->size = 0;
  int got = 0;
  while (r >= 0) {
    r = avcodec_receive_frame(d->ctx, d->f);
    if (r < 0) break;
    if (d->f->sample_rate < 7000 || d->f->sample_rate > 192000 || d->f->ch_layout.nb_channels > 8)
      r = AVERROR_INVALIDDATA;
    else
      r = resampler(d);
    if (r >= 0) {
      uint8_t *to[1] = {(uint8_t *)(out + 2 * got)};
      r = swr_convert(d->swr, to, room - got, (const uint8_t **)d->f->extended_data, d->f->nb_samples);
      if (r > 0) got += r;
    }
    av_frame_unref(d->f);
  }
  if (r == AVERROR(EAGAIN) || r == AVERROR_EOF) r = 0;
  return got > 0 ? got : r;
}

static OpusEncoder *amphi_opus_encoder(int bitrate) {
  int code;
  OpusEncoder *e = opus_encoder_create(48000, 2, OPUS_APPLICATION_AUDIO, &code);
  if (!e) return NULL;
  opus_encoder_ctl(e, OPUS_SET_BITRATE(bitrate));
  opus_encoder_ctl(e, OPUS_SET_COMPLEXITY(5));
  opus_encoder_ctl(e, OPUS_SET_INBAND_FEC(1));
  opus_encoder_ctl(e, OPUS_SET_PACKET_LOSS_PERC(5));
  return e;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// maxDecoded bounds the samples of one access unit at 48 kHz: 2,048 at 7.35 kHz, and what a resampler held back.
const maxDecoded = 1 << 15

// OpusFrame is the samples of 20 ms, per channel.
const OpusFrame = 960

// AACDecoder decodes AAC to interleaved stereo at 48 kHz.
type AACDecoder struct {
	d   *C.amphi_aac_decoder
	buf []byte
	out []float32
}

// NewAACDecoder opens a decoder for the stream that an AudioSpecificConfig (ISO 14496-3) describes.
func NewAACDecoder(config []byte) (*AACDecoder, error) {
	if len(config) == 0 {
		return nil, errors.New("opening decoder aac: no configuration")
	}
	d := &AACDecoder{out: make([]float32, 2*maxDecoded)}
	err := fault("opening decoder aac", C.amphi_aac_decoder_open(&d.d, (*C.uint8_t)(unsafe.Pointer(&config[0])), C.int(len(config))))
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Decode decodes a raw data block. The samples are valid until the next call.
func (d *AACDecoder) Decode(au []byte) ([]float32, error) {
	if len(au) == 0 {
		return nil, nil
	}
	if need := len(au) + padding; cap(d.buf) < need {
		d.buf = make([]byte, need+need/2)
	}
	buf := d.buf[:len(au)+padding]
	copy(buf, au)
	clear(buf[len(au):])
	n := C.amphi_aac_decode(d.d, (*C.uint8_t)(unsafe.Pointer(&buf[0])), C.int(len(au)), (*C.float)(unsafe.Pointer(&d.out[0])), maxDecoded)
	if n < 0 {
		return nil, fault("decoding aac", n)
	}
	return d.out[:2*int(n)], nil
}

// Close frees the decoder.
func (d *AACDecoder) Close() {
	C.amphi_aac_decoder_close(d.d)
	d.d = nil
}

// OpusEncoder encodes interleaved stereo at 48 kHz to Opus packets of 20 ms.
type OpusEncoder struct {
	e   *C.OpusEncoder
	out [1500]byte
}

// NewOpusEncoder opens an encoder for so many bits a second.
func NewOpusEncoder(bitrate int) (*OpusEncoder, error) {
	e := C.amphi_opus_encoder(C.int(bitrate))
	if e == nil {
		return nil, errors.New("opening opus encoder")
	}
	return &OpusEncoder{e: e}, nil
}

// Encode takes OpusFrame samples of both channels. The packet is valid until the next call.
func (o *OpusEncoder) Encode(samples []float32) ([]byte, error) {
	samples = samples[:2*OpusFrame]
	n := C.opus_encode_float(o.e, (*C.float)(unsafe.Pointer(&samples[0])), OpusFrame,
		(*C.uchar)(unsafe.Pointer(&o.out[0])), C.opus_int32(len(o.out)))
	if n < 0 {
		return nil, fmt.Errorf("encoding opus: %s", C.GoString(C.opus_strerror(C.int(n))))
	}
	return o.out[:n], nil
}

// Close frees the encoder.
func (o *OpusEncoder) Close() {
	C.opus_encoder_destroy(o.e)
	o.e = nil
}
