// The few calls into libavcodec and libswscale that a compositor needs.
#pragma once
#include <libavcodec/avcodec.h>
#include <libswscale/swscale.h>
#include <stdint.h>

// Every function that does real work adds its thread CPU time to *ns.

typedef struct {
  AVCodecContext *ctx;
  AVPacket *pkt;
  int64_t ns;
} amphi_decoder;

typedef struct {
  AVCodecContext *ctx;
  AVPacket *pkt;
  AVFrame *in;
  int64_t ns;
} amphi_encoder;

typedef struct {
  int x, y, w, h;
} amphi_rect;

void amphi_log_level(int level);
void amphi_error(int code, char *out, int n);

// Returns 0 or a negative AVERROR.
// reorder: pictures come out in the order in which they are shown, with the delay that this takes.
int amphi_decoder_open(amphi_decoder **out, const char *name, int64_t max_pixels, int reorder);
// Decodes one access unit of n bytes, followed by AV_INPUT_BUFFER_PADDING_SIZE readable
// bytes. *out is the newest picture with pts as given with its packet, or NULL when there is none yet.
int amphi_decode(amphi_decoder *d, uint8_t *data, int n, int64_t pts, AVFrame **out);
void amphi_decoder_close(amphi_decoder *d);

// A canvas is a yuv420p picture, BT.601 matrix, limited range.
AVFrame *amphi_canvas(int w, int h);
void amphi_fill(AVFrame *f, amphi_rect r, int y, int u, int v);
// Scales rectangle from of src into rectangle to of dst; both even.
typedef struct {
  struct SwsContext *ctx;
  AVFrame *scratch; // for widths that libswscale would overrun
  int64_t ns;
} amphi_scaler;
int amphi_scale(amphi_scaler *s, const AVFrame *src, amphi_rect from, AVFrame *dst, amphi_rect to);
void amphi_scaler_free(amphi_scaler *s);
// Blends a w×h bitmap (even) at x, y (even), of which only rectangle clip of dst is touched (even).
void amphi_blend(AVFrame *dst, amphi_rect clip, int x, int y, int w, int h, const uint8_t *py, const uint8_t *pu,
                 const uint8_t *pv, const uint8_t *alpha, const uint8_t *chroma_alpha);

// Weighs dst against src within r (even): 256 leaves dst, 0 copies src.
void amphi_mix(AVFrame *dst, const AVFrame *src, amphi_rect r, int weight);

typedef struct {
  const char *codec; // libavcodec's name
  const char *preset, *tune, *params; // libx264's, may be NULL
  int w, h, fps, threads;
  int64_t bitrate;
} amphi_video_config;

int amphi_video_open(amphi_encoder **out, const amphi_video_config *cfg);
int amphi_video_encode(amphi_encoder *e, const AVFrame *f, int64_t pts, int key);
int amphi_aac_open(amphi_encoder **out, int64_t bitrate);
int amphi_aac_encode(amphi_encoder *e, const float *left, const float *right, int64_t pts);
void amphi_encoder_close(amphi_encoder *e);

int64_t amphi_thread_ns(void);
