// Arguments and results of the FFI handlers, for a CPU and for CUDA: the order is that of kernels/calls.py.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "arguments.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

// The arguments, or the results, of a call, one after the other.
template <typename Buffers>
class Arrays {
 public:
  explicit Arrays(Buffers buffers) : buffers_(buffers) {}

  // The next array; null if it is empty.
  template <typename E>
  E* Next() {
    return static_cast<E*>(Next(sizeof(E)));
  }
  template <typename E>
  PerNeuron<std::remove_const_t<E>> NextPerNeuron() {
    const E* values = Next<E>();
    return {values, dimensions_.back() > 1};
  }
  ffi::DataType next_type() const { return Buffer(next_).element_type(); }

  // Of the last one.
  int64_t dimension(int which) const { return which < 0 ? dimensions_.at(dimensions_.size() + which) : dimensions_.at(which); }
  size_t dimensions() const { return dimensions_.size(); }
  size_t bytes() const { return bytes_; }
  int64_t count() const { return count_; }

 private:
  // The same for numbers of so many bytes; not a template, and compiled once, as handlers call it some fifty times.
  __attribute__((noinline)) void* Next(size_t bytes_of_number) {
    const ffi::AnyBuffer buffer = Buffer(next_++);
    if (ffi::ByteWidth(buffer.element_type()) != bytes_of_number) throw std::string("array " + std::to_string(next_) + " has another type");
    dimensions_.assign(buffer.dimensions().begin(), buffer.dimensions().end());
    bytes_ = buffer.size_bytes(), count_ = buffer.element_count();
    return count_ ? buffer.untyped_data() : nullptr;
  }
  ffi::AnyBuffer Buffer(size_t index) const {
    if constexpr (std::is_same_v<Buffers, ffi::RemainingArgs>) return *buffers_.template get<ffi::AnyBuffer>(index);
    else return **buffers_.template get<ffi::AnyBuffer>(index);
  }
  Buffers buffers_;
  size_t next_ = 0, bytes_ = 0;
  int64_t count_ = 0;
  std::vector<int64_t> dimensions_;
};
using Inputs = Arrays<ffi::RemainingArgs>;
using Outputs = Arrays<ffi::RemainingRets>;

template <typename E>
__attribute__((noinline)) E Attribute(const ffi::Dictionary& attributes, const std::string& name) {
  auto value = attributes.get<E>(name);
  if (value.has_error()) throw "no attribute " + name;
  return *value;
}

// What both handlers that deliver spikes read: connectivity and weights.
template <typename T>
Delivery<T> Connectivity(Inputs& in) {
  Delivery<T> a = {};
  a.excitatory = in.Next<const unsigned char>();
  a.neurons = in.dimension(0);
  a.indptr = in.Next<const int>();
  a.sources = in.dimension(0) - 1;
  a.stream = in.Next<const unsigned>();
  a.post = in.Next<const int>();
  a.weight = in.Next<const T>();
  a.out_indptr = in.Next<const int>();
  a.out_slot = in.Next<const int>();
  a.channel = in.Next<const int>();
  a.w = in.Next<const T>();
  a.inputs = in.dimension(1), a.size = in.dimension(2);
  if (a.stream) {  // the smallest nearly square grid with neurons - 1 points, as in rng.permute
    while (static_cast<long long>(a.rows) * a.rows < a.neurons - 1) ++a.rows;
    a.columns = (a.neurons - 1 + a.rows - 1) / a.rows;
  }
  return a;
}

// The filters and what else a delivery changes, and its list of spikes.
template <typename T>
void Changed(Delivery<T>& a, Outputs& out) {
  a.filters = out.Next<T>();
  a.channels = out.dimension(-2) - 2, a.neurons = out.dimension(-1);
  a.r = out.Next<T>();
  a.own = out.dimension(-1);
  a.n_delivered = out.Next<int>();
}

// Arguments of `steps`, and the results but for the spikes.
template <typename T>
void TimeSteps(Steps<T>& a, Inputs& in, Outputs& out, const ffi::Dictionary& attributes) {
  const auto integer = [&](const std::string& name, const char* more = "") { return static_cast<int>(Attribute<int64_t>(attributes, name + more)); };
  const auto real = [&](const std::string& name, const char* more = "") { return static_cast<T>(Attribute<double>(attributes, name + more)); };
  a.i = in.Next<const int>(), a.condition = in.Next<const int>();
  a.noise_key = in.Next<const unsigned>(), a.spike_key = in.Next<const unsigned>();
  a.rate = in.NextPerNeuron<const T>(), a.threshold = in.NextPerNeuron<const T>(), a.reset = in.NextPerNeuron<const T>();
  a.noise_scale = in.NextPerNeuron<const T>(), a.refractory = in.NextPerNeuron<const int>();
  a.bias = in.Next<const T>(), a.class_weight = in.Next<const T>(), a.factors = in.Next<const T>();
  a.block = in.dimension(0);
  a.rate_table = in.Next<const T>();
  a.nodes = in.dimension(1);
  a.table_start = in.Next<const T>(), a.table_step = in.Next<const T>(), a.kind = in.Next<const int>();
  for (auto [process, given, name] : {std::tuple{&a.stimulus, &a.given_stimulus, "stimulus"}, {&a.rates, &a.given_rates, "rate"}}) {
    process->key = in.Next<const unsigned>();
    if (process == &a.stimulus) a.parts = static_cast<int>(in.count() / 2);
    given->values = in.Next<const T>();
    given->bins = in.dimension(1), given->steps = integer(name, "_bin");
    process->mean = real(name, "_mean"), process->pull = real(name, "_pull"), process->noise = real(name, "_noise");
  }
  a.delays = in.Next<const int>();
  a.delay_count = in.count();
  a.early = in.Next<const bool>();
  a.background.key = in.Next<const unsigned>(), a.background.limits = in.Next<const T>();
  a.background.most = in.dimension(0);
  a.background.gain = in.NextPerNeuron<const T>();
  a.background.draws = integer("background_draws"), a.background.decay = real("background_decay");
  a.delivery = Connectivity<T>(in);
  Changed(a.delivery, out);
  a.v = out.Next<T>(), a.until = out.Next<int>(), a.u_sum = out.Next<T>(), a.expected = out.Next<T>();
  a.stimulus.values = out.Next<T>(), a.rates.values = out.Next<T>();
  a.ring = out.Next<unsigned char>();
  a.rows = a.ring ? out.dimension(-2) : 0;
  a.fired = out.Next<int>(), a.background.current = out.Next<T>(), a.delivery.spiked = out.Next<unsigned char>();
  a.delivery.trials = out.count() / a.delivery.own;
  a.part = a.delivery.neurons / a.parts;
  a.words = out.Next<unsigned>();
  a.steps = integer("steps"), a.noise = integer("noise"), a.stim_on = integer("stim_on"), a.stim_off = integer("stim_off");
  a.stimulated = integer("stimulated"), a.before = integer("before"), a.moving = integer("moving"), a.seconds = real("seconds");
}

// Arguments of `learn`, and the results after P and its scale.
template <typename T>
void Learning(Learn<T>& a, Inputs& in) {
  a.flags = in.Next<const bool>(), a.forgetting = in.Next<const T>(), a.count = in.Next<const int>(), a.refresh = in.Next<const bool>();
  a.decay = in.Next<const T>(), a.r = in.Next<const T>();
  a.sources = in.dimension(0);
  a.arrived = in.Next<const T>(), a.pre = in.Next<const int>();
  a.groups = in.dimension(0), a.inputs = in.dimension(1);
  a.residual = in.Next<const T>();
  a.neurons = in.dimension(0);
}
template <typename T>
void Learned(Learn<T>& a, Outputs& out) {
  a.w = out.Next<T>();
  a.size = out.dimension(2);
  a.u = out.Next<T>();
  a.most = out.dimension(1);
  a.factor = out.Next<T>(), a.g = out.Next<T>();
}

// Arguments of `flush`.
template <typename T>
void PendingUpdates(Learn<T>& a, Inputs& in) {
  a.count = in.Next<const int>(), a.u = in.Next<T>();
  a.groups = in.dimension(0), a.most = in.dimension(1), a.inputs = in.dimension(2);
  a.factor = in.Next<T>();
}
